"""What the commands do, one file a stage; all of them work in the folder of a Run."""
