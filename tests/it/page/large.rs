//! A node with 250 workloads and 50 policies, and packets to all of them.
