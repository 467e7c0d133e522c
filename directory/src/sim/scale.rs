//! Scale.

