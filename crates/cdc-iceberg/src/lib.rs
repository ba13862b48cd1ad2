//! Cold tier: Parquet in Apache Iceberg tables on object storage
