CREATE DATABASE d; USE d;
SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00';
CREATE TABLE kinds (tb TINYBLOB, b BLOB, mb MEDIUMBLOB, lb LONGBLOB, bi BINARY(4), vb VARBINARY(65000), bt BIT(10), y YEAR, e ENUM('a','b'), s SET('a','b'),
  g GEOMETRY, d DATE, t TIME(3), dt DATETIME(6), ts TIMESTAMP(4) NULL, f FLOAT, db DOUBLE, u INT UNSIGNED, i INT, bu BIGINT UNSIGNED, ti TINYINT(1),
  eb ENUM('a','b') CHARACTER SET binary, u16 VARCHAR(10) CHARACTER SET utf16, u32 TEXT CHARACTER SET utf32, l1 VARCHAR(10) CHARACTER SET latin1, gb VARCHAR(10) CHARACTER SET gbk);
INSERT INTO kinds VALUES ('a\0b', 'b', 'c', 'd', 'e', 'f', b'1100000001', 2020, 'a', 'a,b', POINT(1,2), '2020-01-02', '-12:00:01.123', '2020-01-02 03:04:05.123456',
  '2020-01-02 03:04:05.1234', 1.1, 1.1, 1, 1, 18446744073709551615, 1, 'b', 'é\\"', '😀', 'é', 'é');
CREATE TABLE edges (b0 BINARY(0), b255 BINARY(255), b16 BINARY(16), b1 BINARY(1), bit1 BIT(1), bit64 BIT(64), bit57 BIT(57), bit33 BIT(33), vb VARBINARY(65000), e BLOB, tb TINYBLOB,
  last TIMESTAMP(6) NULL, zero TIMESTAMP NULL, lb LONGBLOB, mb MEDIUMBLOB, b BLOB);
INSERT INTO edges VALUES ('', REPEAT(UNHEX('00FF0A0D09225C5CC3'), 28), UNHEX(REPEAT('0', 32)), '\\', 1, 18446744073709551615, 1, 0, REPEAT(UNHEX('00FF0A0D09225C5CC3'), 7000), '', REPEAT('x', 255),
  '2038-01-19 03:14:07.999999', '0000-00-00 00:00:00', REPEAT(UNHEX('00ff0a'), 70000), REPEAT(UNHEX('22000a'), 70000), REPEAT('y', 65535));

-- Stored the same to the last byte afterwards.
CREATE TABLE exact (id INT PRIMARY KEY AUTO_INCREMENT, j JSON);
INSERT INTO exact (j) SELECT JSON_ARRAY(tb, b, mb, lb, bi, vb, bt, y, e, s, g, d, t, dt, ts, f, db, u, i, bu, ti, eb, l1, gb) FROM kinds;
INSERT INTO exact (j) SELECT JSON_OBJECT('raw', JSON_ARRAY(u16, u32, 'plain', JSON_OBJECT('', u16), JSON_ARRAY(), JSON_OBJECT(), tb, b, NULL, true, 1.5e0, -1, u, dt)) FROM kinds;
INSERT INTO exact (j) SELECT CAST(b AS JSON) FROM kinds; INSERT INTO exact (j) SELECT CAST(bt AS JSON) FROM kinds; INSERT INTO exact (j) SELECT CAST(ts AS JSON) FROM kinds;
INSERT INTO exact (j) SELECT CAST(d AS JSON) FROM kinds; INSERT INTO exact (j) SELECT CAST(t AS JSON) FROM kinds; INSERT INTO exact (j) SELECT CAST(u AS JSON) FROM kinds;
INSERT INTO exact (j) SELECT JSON_EXTRACT(JSON_ARRAY(u16), '$[0]') FROM kinds;
INSERT INTO exact (j) SELECT JSON_OBJECT('b0', b0, 'b255', b255, 'b16', b16, 'b1', b1, 'bit1', bit1, 'bit64', bit64, 'bit57', bit57, 'bit33', bit33, 'vb', vb, 'e', e, 'tb', tb,
  'last', last, 'zero', zero, '', lb, ' ', mb, 'b', b) FROM edges;
INSERT INTO exact (j) VALUES (JSON_ARRAY(CAST('0000-00-00' AS DATE), CAST('2023-02-31' AS DATE), CAST('2023-00-00' AS DATE), CAST('2023-02-31 01:02:03.000001' AS DATETIME(6)),
  CAST('0000-00-00 00:00:00' AS DATETIME(6)), CAST('-838:59:59.000000' AS TIME(6)), CAST('838:59:59.000000' AS TIME(6)), CAST('-00:00:00.000001' AS TIME(6)), CAST('9999-12-31' AS DATE)));
INSERT INTO exact (j) VALUES (JSON_ARRAY(CAST(0 AS UNSIGNED), CAST(1 AS UNSIGNED), CAST(65535 AS UNSIGNED), CAST('4294967295' AS UNSIGNED), CAST('4294967296' AS UNSIGNED), CAST('4294967296' AS SIGNED),
  CAST('9223372036854775807' AS SIGNED), CAST('9223372036854775807' AS UNSIGNED), 9223372036854775808, 18446744073709551615, 32767, 32768, -32768, -32769, 2147483648, -2147483649,
  CAST(-9223372036854775807 - 1 AS SIGNED), 0, -0e0, 0e0, 1e0, 1e20, 1e15, 1e14, 5e-324, 1.7976931348623157e308, 2.2250738585072011e-308, 9007199254740993e0, 1e100));
INSERT INTO exact (j) VALUES ('{"base64:type15:AA==": "base64:type252:QQ==", "!": "!", "?": ["?[]\\n1"]}'), ('"![[]]\\n1"'), ('"?"'), ('"base64:type15:QQ=="'), ('"2020-01-02"');
INSERT INTO exact (j) VALUES (JSON_OBJECT('"', _binary'1', '\\', _binary'2', '\n\t\0\r', _binary'3', 'a.b[0]', _binary'4', '*', _binary'5', '**', _binary'5', '$', _binary'6', '😀', _binary'7', ' ', _binary'8', '', _binary'9',
  'é', _binary'a', REPEAT('k', 65535), _binary'b', 'it''s', _binary'c', '`', _binary'd', '\\"', _binary'e', '\\u0041', _binary'f', 'last', _binary'g', '0', _binary'h', 'to', JSON_ARRAY(_binary'i'), '[0]', _binary'j', '@', DATE'2020-01-01'));
INSERT INTO exact (j) VALUES (JSON_ARRAY(JSON_ARRAY(), JSON_OBJECT(), JSON_ARRAY(JSON_ARRAY(_binary'x')), JSON_OBJECT('', JSON_OBJECT('', JSON_OBJECT('', _binary'x')))));
INSERT INTO exact (j) VALUES (NULL), ('null'), ('true'), ('[]'), ('{}'), ('""'), ('1'), ('1.5'), ('[[[[1]]]]');
-- One hundred levels, as deep as it gets.
SET @deep = 'DATE''2020-01-01'''; SET @odd = 0;
DELIMITER //
CREATE PROCEDURE deepen() BEGIN DECLARE n INT DEFAULT 0; WHILE n < 99 DO SET @deep = IF(n % 2, CONCAT('JSON_ARRAY(', @deep, ')'), CONCAT('JSON_OBJECT(''k', n, ''', ', @deep, ')')); SET n = n + 1; END WHILE; END //
DELIMITER ;
CALL deepen(); DROP PROCEDURE deepen;
SET @insert = CONCAT('INSERT INTO exact (j) VALUES (', @deep, ')'); PREPARE p FROM @insert; EXECUTE p; DEALLOCATE PREPARE p;
-- Named like what our own subqueries name; updated in place, which leaves space in a document that is not part of it.
CREATE TABLE n (j INT PRIMARY KEY, v JSON NOT NULL, p JSON, raw JSON DEFAULT (JSON_ARRAY()));
INSERT INTO n (j, v, p) VALUES (1, JSON_OBJECT('v', CAST(1 AS UNSIGNED)), JSON_ARRAY(DATE'2020-01-01')), (2, '[1]', NULL), (3, JSON_ARRAY(TIME'01:00:00', 'x'), '{}');
INSERT INTO n SELECT 4, JSON_ARRAY(d, 'some text that is long', dt), NULL, NULL FROM kinds;
UPDATE n SET v = JSON_SET(v, '$[1]', 'short') WHERE j = 4;
UPDATE n SET v = JSON_SET(v, '$[0]', CAST(1 AS UNSIGNED)) WHERE j = 4;
-- More values than one statement sets, and one that is large.
CREATE TABLE wide (id INT PRIMARY KEY, j JSON);
INSERT INTO wide WITH RECURSIVE q (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM q WHERE n < 699) SELECT 1, JSON_ARRAYAGG(JSON_OBJECT('n', CAST(n AS UNSIGNED), 's', n)) FROM q;
INSERT INTO wide VALUES (2, JSON_ARRAY(REPEAT('x', 5000000), CAST(1 AS UNSIGNED), REPEAT(_binary'y', 3000000)));

CREATE TABLE decimals (id INT PRIMARY KEY AUTO_INCREMENT, j JSON);
INSERT INTO decimals (j) VALUES (JSON_ARRAY(1.10, 0.0, JSON_OBJECT('a', CAST('1.10' AS DECIMAL(65,30))))), (JSON_ARRAY(CAST(REPEAT('9', 65) AS DECIMAL(65)), CAST('-0.000000000000000000000000000001' AS DECIMAL(65,30)))),
  (JSON_ARRAY(CAST(CONCAT(REPEAT('9', 35), '.', REPEAT('9', 30)) AS DECIMAL(65,30)), 12345.67)), (CAST(1.10 AS JSON)), (JSON_ARRAY(CAST(100 AS DECIMAL(10)), 18446744073709551616)), (JSON_ARRAY(-1.50, 100.00, JSON_OBJECT('a', 1e0)));
-- No key, and rows that are the same.
CREATE TABLE keyless (k INT, j JSON);
INSERT INTO keyless WITH RECURSIVE q (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM q WHERE n < 499) SELECT 1, JSON_ARRAYAGG(CAST(n AS DECIMAL(10,2))) FROM q;
INSERT INTO keyless SELECT * FROM keyless; INSERT INTO keyless SELECT * FROM keyless LIMIT 1; INSERT INTO keyless SELECT 2, j FROM keyless LIMIT 1;
-- What an UPDATE after the load would disturb.
CREATE TABLE watched (id INT PRIMARY KEY, j JSON NOT NULL, changed TIMESTAMP NULL ON UPDATE CURRENT_TIMESTAMP, made VARCHAR(40) AS (JSON_TYPE(JSON_EXTRACT(j, '$.n'))) STORED, log INT DEFAULT 0,
  INDEX list ((CAST(j->'$.list' AS UNSIGNED ARRAY))), INDEX made (made), CHECK (JSON_TYPE(j) = 'OBJECT'));
INSERT INTO watched (id, j, changed) VALUES (1, JSON_OBJECT('n', 1.50, 'list', JSON_ARRAY(CAST(3 AS UNSIGNED), 4)), '2001-01-01 00:00:00'), (2, JSON_OBJECT('n', DATE'2020-01-01', 'list', JSON_ARRAY(3)), NULL);
CREATE TRIGGER watched_bi BEFORE INSERT ON watched FOR EACH ROW SET NEW.log = NEW.log + 1;
CREATE TRIGGER watched_bu BEFORE UPDATE ON watched FOR EACH ROW SET NEW.log = NEW.log + 1;
DROP TABLE kinds, edges;
