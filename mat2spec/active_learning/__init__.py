"""What to compute next: acquisition rules and the selection of materials."""
