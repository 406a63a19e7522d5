"""What happens when Kinto writes or deletes a record."""
