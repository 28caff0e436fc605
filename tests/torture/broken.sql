-- Views and programs that their own server cannot run any more. May be fed again with another schema name.
SET NAMES utf8mb4;
SET SESSION sql_mode='NO_ENGINE_SUBSTITUTION';
CREATE DATABASE `broken`;
USE `broken`;
CREATE TABLE t (a INT, b INT); INSERT INTO t VALUES (1, 2);
CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1;
CREATE TABLE gone (x INT);
CREATE VIEW no_table AS SELECT x FROM gone; CREATE VIEW no_column AS SELECT b FROM t; CREATE VIEW no_function AS SELECT f() AS q; CREATE VIEW on_broken AS SELECT x FROM no_table; CREATE VIEW good AS SELECT a FROM t;
DROP TABLE gone; DROP FUNCTION f; ALTER TABLE t DROP b;
CREATE PROCEDURE p() SELECT * FROM gone; CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW INSERT INTO gone VALUES (1);
