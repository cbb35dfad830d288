"""What a run needs from its machine: files, locks, downloads, threads, memory, compiled programs and traces."""
