//! Label sets of endpoints, and how they inherit from profiles.
