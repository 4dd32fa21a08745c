"""What a plugin is: the classes that it subclasses, the hooks that it implements, how it is loaded and checked."""
