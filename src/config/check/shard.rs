//! The rules of `[[database.shard]]` and `[[database.partition]]`.
//! Must not know tables.

use toml::Spanned;

use crate::shard::{SLOTS, ShardId, ShardSet};

use super::super::raw::{RawDatabase, RawPartition, RawServer, RawShard};
use super::super::types::{Role, Server, Shard};
use super::collect::{At, Checker};

pub(super) fn shards(c: &mut Checker<'_>, at: &At, raw: &[Spanned<RawShard>]) -> Vec<Shard> {
    if raw.is_empty() {
        c.error(
            at,
            "database.shard",
            "the database has no shard",
            "add a [[database.shard]] with its servers",
        );
    }
    if let Some(extra) = raw.get(ShardSet::MAX) {
        let what = format!("there are {} shards, the most is {}", raw.len(), ShardSet::MAX);
        c.error(&extra.span(), "database.shard", what, "put several partitions on one shard");
    }
    let mut names = Vec::new();
    let mut addresses = Vec::new();
    let shard = |shard: &Spanned<RawShard>| {
        let raw = shard.get_ref();
        let name = c.unique_name(&raw.name, &shard.span(), "database.shard.name", &mut names);
        Shard { name, servers: servers(c, &shard.span(), &raw.servers, &mut addresses) }
    };
    raw.iter().map(shard).collect()
}

/// `addresses` are those of the whole database: a server belongs to one shard, once.
fn servers(
    c: &mut Checker<'_>,
    at: &At,
    raw: &[Spanned<RawServer>],
    addresses: &mut Vec<String>,
) -> Vec<Server> {
    let key = "database.shard.servers";
    if raw.is_empty() {
        c.error(
            at,
            key,
            "the shard has no server",
            "write servers = [{ host = \"127.0.0.1\", port = 5432 }]",
        );
    }
    let mut servers: Vec<Server> = Vec::new();
    for (i, table) in raw.iter().enumerate() {
        let server = server(c, &table.span(), table.get_ref(), i == 0);
        let twice = |primary: &Server| primary.role == Role::Primary && server.role == Role::Primary;
        if let Some(first) = servers.iter().find(|s| twice(s)) {
            let what = format!("{} and {} are both primaries", first.address(), server.address());
            c.error(&table.span(), key, what, "a shard has one primary: make the other a replica");
        }
        if addresses.contains(&server.address()) {
            let what = format!("{} is there twice", server.address());
            c.error(&table.span(), key, what, "remove one of the two, or mend its port");
        }
        addresses.push(server.address());
        servers.push(server);
    }
    servers
}

/// Without `role` the first server of a shard is expected to be the primary, the others replicas.
fn server(c: &mut Checker<'_>, at: &At, raw: &RawServer, first: bool) -> Server {
    let host = c.name(&raw.host, at, "database.shard.servers.host");
    if let Some(field) = raw.host.as_ref().filter(|h| h.get_ref().contains(['/', ':']) && !is_ip(h.get_ref()))
    {
        let what = format!("\"{host}\" is not a host name or address");
        let remedy = "write the name alone, the port under port; Unix sockets are not supported";
        c.error(&field.span(), "database.shard.servers.host", what, remedy);
    }
    let roles = [("primary", Role::Primary), ("replica", Role::Replica)];
    let expected = if first { Role::Primary } else { Role::Replica };
    Server {
        host,
        port: c.number(raw.port.as_ref(), "database.shard.servers.port", 1..=65_535, 5432) as u16,
        role: c.choice(raw.role.as_ref(), "database.shard.servers.role", &roles, expected),
        weight: c.number(raw.weight.as_ref(), "database.shard.servers.weight", 1..=1_000_000, 1) as u32,
    }
}

fn is_ip(host: &str) -> bool {
    host.parse::<std::net::IpAddr>().is_ok()
}

/// (name, weight, shard) of each partition, in the order of the file.
pub(super) fn partitions(
    c: &mut Checker<'_>,
    raw: &RawDatabase,
    shards: &[String],
) -> Vec<(String, u32, ShardId)> {
    if let Some(extra) = raw.partition.get(usize::from(SLOTS)) {
        let what = format!("there are {} partitions, the most is {SLOTS}", raw.partition.len());
        c.error(&extra.span(), "database.partition", what, "use fewer");
    }
    let mut names = Vec::new();
    let partition = |partition: &Spanned<RawPartition>| {
        let (at, raw) = (partition.span(), partition.get_ref());
        let name = c.unique_name(&raw.name, &at, "database.partition.name", &mut names);
        let weight = c.number(raw.weight.as_ref(), "database.partition.weight", 1..=1_000_000, 1) as u32;
        (name, weight, shard_of(c, &at, raw, shards))
    };
    raw.partition.iter().map(partition).collect()
}

fn shard_of(c: &mut Checker<'_>, at: &At, raw: &RawPartition, shards: &[String]) -> ShardId {
    let key = "database.partition.shard";
    match &raw.shard {
        Some(name) => shard_named(c, name, key, shards),
        None if shards.len() == 1 => ShardId(0),
        None => {
            c.error(at, key, "is missing", "name the shard that holds the partition");
            ShardId(0)
        }
    }
}

/// The shard of that name; the first one when there is none, which is then reported.
pub(super) fn shard_named(
    c: &mut Checker<'_>,
    name: &Spanned<String>,
    key: &str,
    shards: &[String],
) -> ShardId {
    ShardId(c.position(name, key, "shard", shards).unwrap_or(0) as u16)
}
