"""One script for each number that the documentation states; ``nightly`` holds the tests that take long."""
