-- A reference table: the same rows on every shard, so that a join with it never leaves one.
CREATE TABLE IF NOT EXISTS countries (
    code      char(2)      PRIMARY KEY,
    name      varchar(100) NOT NULL,
    continent varchar(20)  NOT NULL
);
INSERT INTO countries (code, name, continent) VALUES
    ('AR', 'Argentina', 'South America'),
    ('AU', 'Australia', 'Oceania'),
    ('BR', 'Brazil', 'South America'),
    ('CA', 'Canada', 'North America'),
    ('CH', 'Switzerland', 'Europe'),
    ('CN', 'China', 'Asia'),
    ('DE', 'Germany', 'Europe'),
    ('EG', 'Egypt', 'Africa'),
    ('ES', 'Spain', 'Europe'),
    ('FR', 'France', 'Europe'),
    ('GB', 'United Kingdom', 'Europe'),
    ('IN', 'India', 'Asia'),
    ('IT', 'Italy', 'Europe'),
    ('JP', 'Japan', 'Asia'),
    ('KE', 'Kenya', 'Africa'),
    ('KR', 'South Korea', 'Asia'),
    ('MX', 'Mexico', 'North America'),
    ('NG', 'Nigeria', 'Africa'),
    ('NZ', 'New Zealand', 'Oceania'),
    ('SE', 'Sweden', 'Europe'),
    ('US', 'United States', 'North America'),
    ('ZA', 'South Africa', 'Africa')
ON CONFLICT (code) DO NOTHING;
