-- A column of every kind of type, with values that are easily lost; read by the tests of the configuration archive.
CREATE SCHEMA other;
CREATE TYPE other.mood AS ENUM ('calm', 'wild "one"');
CREATE TYPE other.pair AS (a int, b text);
CREATE DOMAIN other.code AS varchar(20) CHECK (VALUE <> '');
CREATE DOMAIN other.config AS jsonb;
CREATE TABLE other.everything (
    id bigint PRIMARY KEY, small smallint, flag boolean, price numeric, exact numeric(10, 3), ratio real,
    wide double precision, cash money, name text, short varchar(10), fixed char(5), one "char", code other.code, blob bytea,
    day date, at time, at_tz timetz, moment timestamp, instant timestamptz, span interval, id_uuid uuid, address inet,
    net cidr, mac macaddr, bits bit(5), many bit varying, doc json, docb jsonb, config other.config, mood other.mood,
    pair other.pair, place point, area box, ranges int4range, spans tstzrange, multi nummultirange, words tsvector,
    ask tsquery, lsn pg_lsn, ints int[], texts text[], grid int[], prices numeric[], stamps timestamptz[],
    docs jsonb[], moods other.mood[], pairs other.pair[], flags boolean[], blobs bytea[], shifted int[], path jsonpath
);
INSERT INTO other.everything VALUES (
    1, -32768, true, 12345678901234567890.000100, 1.500, 'NaN', 1e-300, 12.34,
    E'tab\t "quoted" \\ 😀 \u0001', 'short', 'ab', 'x', 'code', '\x00ff5c', '0044-03-15 BC', '24:00', '10:00:00.5+02',
    '-infinity', '2026-11-22 19:00:00.123456+02', '-1 year 2 mons -3 days 04:05:06.7', gen_random_uuid(),
    '192.168.1.5/24', '10.0.0.0/8', '08:00:2b:01:02:03', B'10101', B'1',
    '{"b":1,  "b":2, "z": 1.10, "t": "\ud83d\ude00"}', '{"x": 1.10, "y": [1e400, null]}', '{"a": null}', 'wild "one"',
    ROW(1, 'b,"c'), '(1.5,2)', '(1,2),(0,0)', '[1,5)', '[2026-01-01 00:00+00,infinity)', '{[1.5,2.5),[7,8]}',
    'a:1A b', 'a & !b', '16/B374D848', '{1,NULL,3}', '{a,NULL,"NULL","b,c",""}', '{{1,2},{3,4}}',
    '{1.50,NaN}', '{"2026-11-22 19:00+02",NULL,infinity}', ARRAY['null'::jsonb, NULL, '{"a": 1}'],
    '{calm,"wild \"one\""}', ARRAY[ROW(1, 'x')::other.pair], '{t,NULL,f}', ARRAY['\x00'::bytea], '[0:2]={7,8,9}',
    '$.a[*] ? (@ > 1)'
);
INSERT INTO other.everything (
    id, price, ratio, wide, name, short, fixed, blob, day, at, moment, instant, span, address, many, doc, docb, config,
    ranges, multi, words, ints, texts, grid, prices, stamps, docs, moods, pairs
) VALUES (
    2, 'Infinity', '-0', '-Infinity', '', '', '', '', '12026-03-15', '00:00:00.000001', '12026-03-15 01:02:03',
    '0001-01-01 00:00:00+00', '0', '::1', '', 'null', 'null', 'null', 'empty', '{}', '', '{}', '{}', '{}', '{}', '{}',
    '{}', '{}', '{}'
);
INSERT INTO other.everything (id) VALUES (3);
