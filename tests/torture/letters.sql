-- Programs that another character set wrote, one in which the second byte of a letter may be a backtick or a backslash. May be fed again
-- with another schema name. MySQL's own replicas cannot apply them: its binlog holds the names in UTF-8, the rest as it was written.
SET NAMES utf8mb4;
SET SESSION sql_mode='';
SET time_zone='+00:00';
CREATE DATABASE `letters` DEFAULT CHARACTER SET latin2 COLLATE latin2_czech_cs;
USE `letters`;
CREATE TABLE `t` (a INT);
SET NAMES sjis;
-- The client counts backticks, hence the comments.
DELIMITER ;;
CREATE PROCEDURE `チ`() COMMENT 'plain' SELECT '表' /* ` */;;
CREATE TRIGGER `tr チ` BEFORE INSERT ON `t` FOR EACH ROW SET @a = '能' /* ` */;;
CREATE EVENT `ev チ` ON SCHEDULE EVERY 1 YEAR STARTS '2035-01-01 00:00:00' COMMENT 'x' DO SET @a = '表' /* ` */;;
CREATE VIEW `v チ` AS SELECT 'x' AS `チ`;;
SET NAMES gbk;;
CREATE FUNCTION `f ～`(a VARCHAR(10)) RETURNS VARCHAR(10) CHARACTER SET gbk DETERMINISTIC COMMENT '―' RETURN '―' /* ` */;;
DELIMITER ;
SET NAMES utf8mb4;
