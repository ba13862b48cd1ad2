//! Batches to Parquet files, cut by day of the event, rows and bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use cdc_model::{Entropy, Record, mutant};
use iceberg::spec::{DataFile, DataFileBuilder, Literal, SchemaRef as TableSchemaRef, Struct};
use iceberg::writer::CurrentFileStatus as _;
use iceberg::writer::file_writer::{
    FileWriter as _, FileWriterBuilder as _, ParquetWriter, ParquetWriterBuilder,
};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use uuid::Uuid;

use crate::encode::{Rows, arrow_schema};
use crate::schema::{self, name_of, table_schema};
use crate::{Error, Result, Settings, Storage};

/// Rows and body bytes turned into Arrow at once; bounds the memory beside the batch itself.
const ROWS_PER_STEP_MAX: usize = 1024;
const BYTES_PER_STEP_MAX: usize = 4 << 20;
/// Bounds what a reader holds of one file at a time.
const ROWS_PER_GROUP_MAX: usize = 16 * 1024;
const BYTES_PER_GROUP_MAX: usize = 16 << 20;
/// A longer string leaves its file without a bound on that column, so that nothing is pruned by a cut one.
const BOUND_BYTES_MAX: usize = 256;
/// The sort order of [`schema::new_table`].
const SORT_ORDER_ID: i32 = 1;
pub(crate) const DAY_MS: i64 = 86_400_000;

/// Writes the data files of one table.
#[derive(Debug)]
pub(crate) struct DataFiles {
    storage: Storage,
    location: String,
    settings: Settings,
    entropy: Entropy,
    arrow: SchemaRef,
    writer: ParquetWriterBuilder,
}

impl DataFiles {
    pub(crate) fn new(
        storage: Storage,
        location: String,
        settings: Settings,
        entropy: Entropy,
    ) -> Result<Self> {
        let table: TableSchemaRef = Arc::new(table_schema()?);
        let writer = ParquetWriterBuilder::new(properties(), table);
        Ok(Self { storage, location, settings, entropy, arrow: arrow_schema()?, writer })
    }

    /// Writes all records, by day and in order, and returns the files. None of them is part of the table yet.
    pub(crate) async fn write(&self, records: &[Record], spec_id: i32) -> Result<Vec<DataFile>> {
        let mut days: BTreeMap<i64, Vec<&Record>> = BTreeMap::new();
        for record in records {
            days.entry(record.origin_timestamp.get().div_euclid(DAY_MS)).or_default().push(record);
        }
        let mut files = Vec::new();
        for (day, records) in days {
            for records in records.chunks(self.settings.rows_per_file_max.max(1)) {
                let mut rest = records;
                while !rest.is_empty() {
                    let (file, written) = self.write_one(day, rest, spec_id).await?;
                    files.push(file);
                    rest = rest.split_at(written).1;
                }
            }
        }
        Ok(files)
    }

    /// Writes one file, as many of the records as its size allows and at least one step of them.
    async fn write_one(&self, day: i64, records: &[&Record], spec_id: i32) -> Result<(DataFile, usize)> {
        let uuid =
            if mutant!("data-file-overwritten") { Uuid::nil() } else { Uuid::from_u128(self.entropy.u128()) };
        let location = format!("{}/data/{}/00000-0-{uuid}.parquet", self.location, day_folder(day));
        let open = self.writer.build(self.storage.output(&location)).await;
        let mut writer: ParquetWriter = open.map_err(Error::table("open a data file"))?;
        let mut rows = Rows::new(&self.arrow);
        let mut written = 0;
        while written < records.len() && writer.current_written_size() < self.settings.bytes_per_file_max {
            let (_, rest) = records.split_at(written);
            let step = step_of(rest);
            for record in rest.iter().take(step) {
                rows.push(record)?;
            }
            writer.write(&rows.finish()?).await.map_err(Error::table("write a data file"))?;
            written += step;
        }
        let closed = writer.close().await.map_err(Error::table("write a data file"))?;
        let mut builder: DataFileBuilder =
            closed.into_iter().next().ok_or_else(|| undescribed("it is empty"))?;
        let day = i32::try_from(day).map_err(|error| undescribed(error.to_string()))?;
        builder
            .partition(Struct::from_iter([Some(Literal::date(day))]))
            .partition_spec_id(spec_id)
            .sort_order_id(SORT_ORDER_ID);
        Ok((builder.build().map_err(|error| undescribed(error.to_string()))?, written))
    }
}

fn undescribed(reason: impl Into<String>) -> Error {
    Error::from_iceberg("describe a data file", iceberg::Error::new(iceberg::ErrorKind::Unexpected, reason))
}

/// How many of the records make the next step: at least one.
fn step_of(records: &[&Record]) -> usize {
    let mut bytes = 0_usize;
    let fits = records.iter().take(ROWS_PER_STEP_MAX).take_while(|record| {
        let before = bytes;
        bytes = bytes.saturating_add(record.body.as_str().len());
        before < BYTES_PER_STEP_MAX
    });
    fits.count().max(1)
}

/// `year=YYYY/month=MM/day=DD` of a day since 1970, UTC, by the proleptic Gregorian calendar.
fn day_folder(day: i64) -> String {
    // Eras of 400 years of which the first begins on 0000-03-01, 719,468 days before 1970, so that leap days end years.
    let shifted = day + 719_468;
    let (era, in_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("year={year:04}/month={month:02}/day={day:02}")
}

fn properties() -> WriterProperties {
    let path = |id| ColumnPath::from(name_of(id));
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROWS_PER_GROUP_MAX))
        .set_max_row_group_bytes(Some(BYTES_PER_GROUP_MAX))
        .set_statistics_truncate_length(Some(BOUND_BYTES_MAX))
        // Row groups are small enough to be skipped whole; an index of pages would only weigh on small files.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true);
    for id in [schema::ID, schema::BEFORE, schema::AFTER] {
        properties = properties.set_column_dictionary_enabled(path(id), false);
    }
    for id in [schema::TIMESTAMP, schema::SEQUENCE, schema::CURSOR_SEQUENCE, schema::CURSOR_TIMESTAMP] {
        properties = properties
            .set_column_dictionary_enabled(path(id), false)
            .set_column_encoding(path(id), Encoding::DELTA_BINARY_PACKED);
    }
    // Bounds of documents would only fill manifests.
    for id in [
        schema::BEFORE,
        schema::AFTER,
        schema::TAG,
        schema::TRANSACTION,
        schema::DERIVED_FROM,
        schema::SCHEMA,
    ] {
        properties = properties.set_column_statistics_enabled(path(id), EnabledStatistics::None);
    }
    properties.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_padded_utc_folders() {
        for (ms, folder) in [
            (0, "year=1970/month=01/day=01"),
            (-1, "year=1969/month=12/day=31"),
            (1_705_276_799_999, "year=2024/month=01/day=14"),
            (1_705_276_800_000, "year=2024/month=01/day=15"),
            (1_709_164_800_000, "year=2024/month=02/day=29"),
            (1_709_251_200_000, "year=2024/month=03/day=01"),
            (4_107_542_399_999, "year=2100/month=02/day=28"),
            (4_107_542_400_000, "year=2100/month=03/day=01"),
            (-62_167_219_200_000, "year=0000/month=01/day=01"),
            (253_402_300_800_000, "year=10000/month=01/day=01"),
        ] {
            assert_eq!(day_folder(i64::div_euclid(ms, DAY_MS)), folder, "{ms}");
        }
    }
}
