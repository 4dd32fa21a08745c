"""The files of a run for people and other programs, but for the page: junit.xml, accuracy.json, the register's document."""
