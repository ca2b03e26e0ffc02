//! Placeholder: written in the next commit.
