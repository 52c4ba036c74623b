"""The incident store's tables from one revision to the next and back."""
