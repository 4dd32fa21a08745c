"""Several reports side by side: what differs, how it went over time, parts merged, and which package brings a finding."""
