"""What a run asks of its machine: files, locks, downloads, threads, memory, the compile cache, traces."""
