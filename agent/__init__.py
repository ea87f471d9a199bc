"""The backend host's side: samples load and reports it to every director."""
