//! A table as the messages of its rows, in text or binary format.
//! Must not know what the table shows.

use bytes::BytesMut;

use super::AdminError;
use crate::rows::{Column, Table};
use crate::wire::{BackendWriter, FieldDescription};

/// The fields of a RowDescription for these columns. `formats` as in Bind: none is text for all, one is for all,
/// else one per column; 1 is binary.
///
/// # Errors
/// [`AdminError::ResultFormats`] for another number of formats.
pub fn describe_row(columns: &[Column], formats: &[i16]) -> Result<Vec<FieldDescription>, AdminError> {
    if formats.len() > 1 && formats.len() != columns.len() {
        return Err(AdminError::ResultFormats { given: formats.len(), columns: columns.len() });
    }
    let field = |(at, column): (usize, &Column)| FieldDescription {
        format: format_of(formats, at),
        ..FieldDescription::text(column.name.as_str(), column.kind.oid(), column.kind.len())
    };
    Ok(columns.iter().enumerate().map(field).collect())
}

fn format_of(formats: &[i16], at: usize) -> i16 {
    let one_for_all = formats.first().filter(|_| formats.len() == 1);
    one_for_all.or_else(|| formats.get(at)).copied().unwrap_or(0)
}

/// Writes RowDescription and one DataRow per row; CommandComplete is the caller's, as SELECT and SHOW differ.
///
/// # Errors
/// As [`describe_row`]; nothing is written then.
pub fn put_table(table: &Table, formats: &[i16], out: &mut BytesMut) -> Result<(), AdminError> {
    out.put_row_description(&describe_row(&table.columns, formats)?);
    put_rows(table, formats, out)
}

/// Writes one DataRow per row. A format is looked at where a value has it: with the first row.
///
/// # Errors
/// As [`describe_row`], and [`AdminError::Format`]; nothing is written then.
pub fn put_rows(table: &Table, formats: &[i16], out: &mut BytesMut) -> Result<(), AdminError> {
    let formats: Vec<_> = describe_row(&table.columns, formats)?.iter().map(|f| f.format).collect();
    if let Some(unknown) = formats.iter().find(|code| !matches!(code, 0 | 1) && !table.rows.is_empty()) {
        return Err(AdminError::Format(*unknown));
    }
    let is_binary: Vec<_> = formats.iter().map(|code| *code == 1).collect();
    let mut bytes = Vec::new();
    let mut ends = Vec::with_capacity(table.columns.len());
    for row in &table.rows {
        bytes.clear();
        ends.clear();
        for ((value, column), binary) in row.iter().zip(&table.columns).zip(&is_binary) {
            let start = bytes.len();
            if *binary {
                value.put_binary(column.kind, &mut bytes);
            } else {
                bytes.extend_from_slice(value.to_text().as_bytes());
            }
            ends.push((!value.is_null()).then_some(start..bytes.len()));
        }
        out.put_data_row(ends.iter().map(|range| range.clone().and_then(|r| bytes.get(r))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{Type, Value};

    fn table() -> Table {
        Table {
            columns: vec![
                Column::new("n", Type::Int8),
                Column::new("t", Type::Text),
                Column::new("b", Type::Bool),
            ],
            rows: vec![vec![Value::Int(258), Value::Null, Value::Bool(true)]],
        }
    }

    #[test]
    fn formats_are_chosen_as_in_bind() {
        for (formats, want) in
            [(&[][..], [0, 0, 0]), (&[0], [0, 0, 0]), (&[1], [1, 1, 1]), (&[1, 0, 1], [1, 0, 1])]
        {
            let fields = describe_row(&table().columns, formats).unwrap();
            assert_eq!(fields.iter().map(|f| f.format).collect::<Vec<_>>(), want);
        }
        assert!(describe_row(&table().columns, &[0, 1]).is_err());
        assert_eq!(describe_row(&table().columns, &[7]).unwrap()[2].format, 7);
        let types: Vec<_> = describe_row(&table().columns, &[]).unwrap();
        assert_eq!(
            types.iter().map(|f| (f.type_oid, f.type_len)).collect::<Vec<_>>(),
            [(20, 8), (25, -1), (16, 1)]
        );
    }

    #[test]
    fn rows_are_written_in_text_and_binary() {
        for (formats, want) in [
            (&[0][..], &b"D\0\0\0\x16\0\x03\0\0\0\x03258\xff\xff\xff\xff\0\0\0\x01t"[..]),
            (&[1], b"D\0\0\0\x1b\0\x03\0\0\0\x08\0\0\0\0\0\0\x01\x02\xff\xff\xff\xff\0\0\0\x01\x01"),
        ] {
            let mut out = BytesMut::new();
            put_rows(&table(), formats, &mut out).unwrap();
            assert_eq!(&out[..], want);
        }
        let (mut out, none) = (BytesMut::new(), Table { rows: Vec::new(), ..table() });
        assert_eq!(put_rows(&table(), &[0, 2, 0], &mut out), Err(AdminError::Format(2)));
        assert_eq!(put_rows(&none, &[2], &mut out), Ok(()));
        assert!(out.is_empty());
    }
}
