-- Sharded by user_id (hash); partition_key is the partition that user_id falls into.
CREATE TABLE IF NOT EXISTS users (
    id            serial       PRIMARY KEY,
    user_id       varchar(50)  NOT NULL,
    name          varchar(100) NOT NULL,
    email         varchar(100) NOT NULL,
    created_at    timestamp    DEFAULT CURRENT_TIMESTAMP,
    partition_key varchar(10)  NOT NULL
);
CREATE INDEX IF NOT EXISTS users_user_id_idx ON users (user_id);
CREATE INDEX IF NOT EXISTS users_partition_key_idx ON users (partition_key);
