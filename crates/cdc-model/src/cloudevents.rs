use crate::record::{push, push_raw};
use crate::{Content, Error, Record};

/// A record as a CloudEvent 1.0 in JSON. `data` is the event with its cursor, as [`Record::to_json`] gives it.
///
/// `sequence` is the cursor's, zero-padded to 20 digits, so that it sorts as text.
///
/// # Errors
///
/// [`Error::Json`] when the body does not decode.
pub fn to_cloudevent(record: &Record) -> Result<String, Error> {
    let (kind, subject) = match record.body.content()? {
        Content::Change(body) => {
            let kind = format!("cdc.{}", body.operation.as_str().to_ascii_lowercase());
            (kind, format!("{}/{}", body.collection, body.document_id))
        }
        Content::Schema(schema) => ("cdc.schema".to_owned(), schema.collection),
    };
    let mut out = String::from("{");
    push(&mut out, "specversion", &"1.0");
    push(&mut out, "id", &record.id());
    push(&mut out, "source", &record.origin.source());
    push(&mut out, "type", &kind);
    push(&mut out, "subject", &subject);
    push(&mut out, "time", &record.origin_timestamp.to_string());
    push(&mut out, "sequence", &format!("{:020}", record.sequence.get()));
    push(&mut out, "datacontenttype", &"application/json");
    push_raw(&mut out, "data", &record.to_json()?);
    out.push('}');
    Ok(out)
}
