"""Claims of folders: no two exports write into the same folder of a bucket, or one into a folder of the other."""
