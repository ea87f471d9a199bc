"""A cluster's files from a few answers: `director init`. What is written is decided first, and written as one."""
