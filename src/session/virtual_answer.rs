//! Answers of virtual tables as messages, in both protocols.
//! Must not know what the tables show.

use bytes::{Bytes, BytesMut};

use crate::admin::{self, Herd, Params};
use crate::rows::Select;
use crate::wire::{BackendWriter, BindView, ClientFacing, ErrorReport, SqlState, parse_bind_tail};

/// Runs a SELECT. `declared`: the types of Parse; `tail`: all of Bind after the names, `None` in the simple
/// protocol, whose rows are described.
pub(super) fn run(
    herd: &Herd,
    select: &Select,
    declared: &[u8],
    tail: Option<&Bytes>,
    out: &mut BytesMut,
) -> Result<(), ErrorReport> {
    let rows = match tail {
        None => {
            let table = admin::select(herd, select, &Params::none()).map_err(|e| e.report())?;
            admin::put_table(&table, &[], out).map_err(|e| e.report())?;
            table.rows.len()
        }
        Some(tail) => {
            let view = bound(tail)?;
            let shape = admin::describe(herd, select, &oids(declared)).map_err(|e| e.report())?;
            let values = view.values().enumerate().map(|(i, value)| (value, view.is_binary(i)));
            let params = Params::read(&shape.params, values).map_err(|e| e.report())?;
            let table = admin::select(herd, select, &params).map_err(|e| e.report())?;
            admin::put_rows(&table, &view.result_formats(), out).map_err(|e| e.report())?;
            table.rows.len()
        }
    };
    out.put_command_complete(&format!("SELECT {rows}"));
    Ok(())
}

/// Runs SHOW of a virtual table.
pub(super) fn show(
    herd: &Herd,
    name: &str,
    tail: Option<&Bytes>,
    out: &mut BytesMut,
) -> Result<(), ErrorReport> {
    let table = admin::show(herd, name).map_err(|e| e.report())?;
    match tail {
        None => admin::put_table(&table, &[], out),
        Some(tail) => admin::put_rows(&table, &formats(tail), out),
    }
    .map_err(|e| e.report())?;
    out.put_command_complete("SHOW");
    Ok(())
}

/// What is wrong with a Bind of a SELECT: its values, or the number of its result formats.
pub(super) fn check_bind(
    herd: &Herd,
    select: &Select,
    declared: &[u8],
    view: &BindView<'_>,
) -> Result<(), ErrorReport> {
    let shape = admin::describe(herd, select, &oids(declared)).map_err(|e| e.report())?;
    let values = view.values().enumerate().map(|(i, value)| (value, view.is_binary(i)));
    Params::read(&shape.params, values).map_err(|e| e.report())?;
    admin::describe_row(&shape.columns, &view.result_formats()).map_err(|e| e.report())?;
    Ok(())
}

/// Describes a SELECT: its parameters too, unless it is already bound.
pub(super) fn describe(
    herd: &Herd,
    select: &Select,
    declared: &[u8],
    tail: Option<&[u8]>,
    out: &mut BytesMut,
) -> Result<(), ErrorReport> {
    let shape = admin::describe(herd, select, &oids(declared)).map_err(|e| e.report())?;
    if tail.is_none() {
        let oids: Vec<u32> = shape.params.iter().map(|p| p.oid).collect();
        out.put_parameter_description(&oids);
    }
    let formats = tail.map(formats).unwrap_or_default();
    out.put_row_description(&admin::describe_row(&shape.columns, &formats).map_err(|e| e.report())?);
    Ok(())
}

/// Describes SHOW of a virtual table.
pub(super) fn describe_show(
    herd: &Herd,
    name: &str,
    tail: Option<&[u8]>,
    out: &mut BytesMut,
) -> Result<(), ErrorReport> {
    let Some(select) = admin::show_select(name) else {
        return Err(ErrorReport::error(
            SqlState::UNDEFINED_OBJECT,
            format!("there is no virtual table \"{name}\""),
        ));
    };
    let shape = admin::describe(herd, &select, &[]).map_err(|e| e.report())?;
    let formats = tail.map(formats).unwrap_or_default();
    out.put_row_description(&admin::describe_row(&shape.columns, &formats).map_err(|e| e.report())?);
    Ok(())
}

/// The result formats of a Bind.
pub(super) fn formats(tail: &[u8]) -> Vec<i16> {
    parse_bind_tail(tail).map(|view| view.result_formats()).unwrap_or_default()
}

fn bound(tail: &[u8]) -> Result<BindView<'_>, ErrorReport> {
    parse_bind_tail(tail).map_err(|e| ErrorReport::error(SqlState::PROTOCOL_VIOLATION, e.to_string()))
}

fn oids(types: &[u8]) -> Vec<u32> {
    types.as_chunks::<4>().0.iter().map(|b| u32::from_be_bytes(*b)).collect()
}
