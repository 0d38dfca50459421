-- Sharded by user_id (hash), so an order lies beside its user.
CREATE TABLE IF NOT EXISTS orders (
    id         serial         PRIMARY KEY,
    user_id    varchar(50)    NOT NULL,
    order_id   varchar(50)    NOT NULL,
    amount     decimal(10, 2) NOT NULL,
    created_at timestamp      DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX IF NOT EXISTS orders_user_id_idx ON orders (user_id);
CREATE INDEX IF NOT EXISTS orders_order_id_idx ON orders (order_id);
