"""The sagas' tables from one revision to the next and back."""
