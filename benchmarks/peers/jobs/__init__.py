"""What the contestants' workers import: the job, written the way each of them wants it."""
