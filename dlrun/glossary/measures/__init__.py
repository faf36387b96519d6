"""What is measured, one file a theme. Each function takes what it tests as an argument, so that a wrong one can be put
in its place and the verdict be seen to turn."""
