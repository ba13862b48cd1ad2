//! Workload generator and benchmarks
