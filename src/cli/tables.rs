//! The files of `sql/`: which table each creates and how that table is meant to be placed.
//! Must not know a server. The folder names the placement, the file the table.

use std::borrow::Cow;
use std::path::Path;

use super::Failure;
use crate::shard::{Map, Placement, ShardId, TableName};

/// The folder a file lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folder {
    /// Rows spread by key: on every shard.
    Sharded,
    /// The same rows everywhere: on every shard, with its rows.
    Reference,
    /// Whole on one shard.
    Single,
}

impl Folder {
    const ALL: [Self; 3] = [Self::Sharded, Self::Reference, Self::Single];

    /// Its name, which is also the placement's in the configuration.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sharded => "sharded",
            Self::Reference => "reference",
            Self::Single => "single",
        }
    }

    fn of(placement: &Placement) -> Self {
        match placement {
            Placement::Sharded(_) => Self::Sharded,
            Placement::Reference => Self::Reference,
            Placement::Single(_) => Self::Single,
        }
    }
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableFile {
    /// Where it lies.
    pub(super) folder: Folder,
    /// The table it creates, in schema `public`.
    pub(super) table: String,
    /// Its statements; running them again changes nothing.
    pub(super) sql: Cow<'static, str>,
}

/// The files that come with pgherd.
pub(super) fn shipped() -> Vec<TableFile> {
    let file = |folder, table: &str, sql: &'static str| TableFile {
        folder,
        table: table.to_owned(),
        sql: Cow::Borrowed(sql),
    };
    vec![
        file(Folder::Sharded, "users", include_str!("../../sql/sharded/users.sql")),
        file(Folder::Sharded, "orders", include_str!("../../sql/sharded/orders.sql")),
        file(Folder::Reference, "countries", include_str!("../../sql/reference/countries.sql")),
        file(Folder::Single, "audit_log", include_str!("../../sql/single/audit_log.sql")),
    ]
}

/// The files of a directory, folder by folder in the order of their names.
///
/// # Errors
/// A directory without any, or a file that cannot be read.
pub(super) fn in_dir(dir: &Path) -> Result<Vec<TableFile>, Failure> {
    let mut files = Vec::new();
    for folder in Folder::ALL {
        let Ok(entries) = std::fs::read_dir(dir.join(folder.name())) else { continue };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ext| ext == "sql"));
        paths.sort();
        for path in paths {
            let table = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let sql = std::fs::read_to_string(&path)
                .map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))?;
            files.push(TableFile { folder, table, sql: Cow::Owned(sql) });
        }
    }
    if files.is_empty() {
        return Err(Failure::new(format!("{} has no tables", dir.display()))
            .remedy("put each table into sharded/<table>.sql, reference/<table>.sql or single/<table>.sql"));
    }
    Ok(files)
}

impl TableFile {
    /// The table.
    pub(super) fn name(&self) -> TableName {
        TableName::new("public", &self.table)
    }

    /// The shards it belongs on; `None` if the map does not name the table.
    ///
    /// # Errors
    /// If the map places it otherwise than its folder says.
    pub(super) fn shards(&self, map: &Map) -> Result<Option<Vec<ShardId>>, Failure> {
        let Some(placement) = map.tables.get(&self.name()) else { return Ok(None) };
        let placed = Folder::of(placement);
        if placed != self.folder {
            let (table, folder) = (&self.table, self.folder.name());
            return Err(Failure::new(format!(
                "table {table} is {} in the configuration, but its file lies in {folder}/",
                placed.name()
            ))
            .remedy(format!(
                "set placement = \"{folder}\" for it, or give setup files of your own with --sql"
            )));
        }
        Ok(Some(match placement {
            Placement::Sharded(_) | Placement::Reference => map.all().iter().collect(),
            Placement::Single(shard) => vec![*shard],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, DEMO_PORT_BASE, demo_text};

    fn demo_map() -> std::sync::Arc<Map> {
        let text = demo_text(DEMO_PORT_BASE).unwrap();
        let config = Config::parse(&text, Path::new("proxy.toml"), &|_| None).unwrap().config;
        config.databases[0].map.clone()
    }

    #[test]
    fn the_shipped_files_go_where_the_shipped_configuration_places_them() {
        let map = demo_map();
        let got: Vec<_> = shipped()
            .iter()
            .map(|file| (file.table.clone(), file.shards(&map).unwrap().unwrap().len()))
            .collect();
        let want = [("users", 3), ("orders", 3), ("countries", 3), ("audit_log", 1)];
        assert_eq!(got, want.map(|(table, n)| (table.to_owned(), n)));
    }

    #[test]
    fn a_file_in_the_wrong_folder_is_refused_and_an_unknown_table_is_left_out() {
        let map = demo_map();
        let mut file = shipped().remove(0);
        file.folder = Folder::Single;
        assert!(file.shards(&map).unwrap_err().to_string().contains("sharded in the configuration"));
        file.table = "unknown".into();
        assert_eq!(file.shards(&map), Ok(None));
    }

    #[test]
    fn the_files_of_a_directory_are_those_of_the_shipped_one() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
        let mut read = in_dir(&dir).unwrap();
        let mut embedded = shipped();
        read.sort_by(|a, b| a.table.cmp(&b.table));
        embedded.sort_by(|a, b| a.table.cmp(&b.table));
        assert_eq!(read, embedded);
        assert!(in_dir(&dir.join("sharded")).is_err());
    }
}
