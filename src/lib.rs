//! pgherd: a PostgreSQL wire-protocol proxy that makes a herd of PostgreSQL servers look like one.
//!
//! The rooms, in the order in which a statement passes through them; a room imports only rooms above it
//! (`tests/layers.rs` enforces the list):
//!
//! | room | its one duty |
//! |---|---|
//! | [`wire`] | PostgreSQL v3 bytes to typed messages and back; no socket, no clock |
//! | [`shard`] | a sharding key to a partition to a shard; pure |
//! | [`catalog`] | what the servers' catalogs said: tables, columns, types, functions; pure |
//! | [`rows`] | small typed row sets held in memory, and the SELECT that filters and sorts them; pure |
//! | [`stats`] | what happened: recorders, live sessions, snapshots |
//! | [`config`] | `proxy.toml` to a checked `Config` |
//! | [`route`] | SQL text, values and the map to a `Route`; alone in naming `sqlparser` |
//! | [`pool`] | opens, authenticates, lends, cleans and closes server connections |
//! | [`cluster`] | which servers form which shard, their role and health |
//! | [`exec`] | carries out a `Route`: relay, scatter |
//! | [`admin`] | all that an operator sees or orders |
//! | [`session`] | one client's life from accept to close |
//! | [`http`] | health, data and figures over HTTP |
//! | [`local`] | PostgreSQL clusters on this machine, for the demo and the tests |
//! | [`cli`] | the command line: builds the rooms from the config, accepts, drains |

pub mod admin;
pub mod catalog;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod exec;
pub mod http;
pub mod local;
pub mod pool;
pub mod route;
pub mod rows;
pub mod session;
pub mod shard;
pub mod stats;
pub mod wire;
