"""The mesh on this machine: its folder, its processes, and access to what runs."""
