//! Failure detection.

