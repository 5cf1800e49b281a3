-- All that the views show, but for moments and event ids.

SELECT 'batch', b.* FROM alloc.batches b ORDER BY b.ref COLLATE "C";
SELECT 'stock', s.* FROM alloc.stock s ORDER BY s.sku COLLATE "C";
SELECT 'line', a.* FROM alloc.allocations a ORDER BY a.orderid COLLATE "C", a.sku COLLATE "C";
SELECT 'waits', w.orderid, w.sku, w.qty FROM alloc.backorders w ORDER BY w.orderid COLLATE "C", w.sku COLLATE "C";
SELECT 'replayed', r.* FROM alloc.replay() r ORDER BY r.ref COLLATE "C";
