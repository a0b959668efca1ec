"""Every code block of the README and the documentation, and somebody who pastes them into a project."""
