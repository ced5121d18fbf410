"""What must hold for every input, stated in words and tried by hypothesis."""
