"""What operators have of a process: metrics, health, the API and the page that is made with it."""
