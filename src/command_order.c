/*-------------------------------------------------------------------------
 *
 * command_order.c
 *	  allocate_order(): the lines of one order, all of them or what there is;
 *	  and a hold for one that several partitions take.
 *
 * Lines of one sku become one line.  Then bulk.c plans what each would get, and
 * the mode decides what of it is taken; in attempts (bulk_run.c).  An order
 * that is not taken keeps no stock from others, not even by a lock, though what
 * it lacked is recorded.
 *
 * Memory: "alloc lines" as in command_lines.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "bulk.h"
#include "command.h"
#include "common/int.h"
#include "fmgr.h"
#include "funcapi.h"
#include "handler.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "stat.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(alloc_allocate_order);
PG_FUNCTION_INFO_V1(alloc_hold_for_fleet);

/* What becomes of an order of which some lines cannot be served. */
typedef enum OrderMode
{
	ORDER_ALL,					/* it gets nothing */
	ORDER_PARTIAL,				/* it gets the others */
	ORDER_BACKORDER,			/* likewise, and these wait */
	ORDER_NMODES
} OrderMode;

typedef struct OrderModeEntry
{
	const char *name;
	AllocBulkWork serve;
} OrderModeEntry;

/* A line of the order, by its sku. */
typedef struct OrderSku
{
	const text *sku;			/* the key of the hash table */
	AllocBulkLine *line;
} OrderSku;

static OrderMode arg_mode(FunctionCallInfo fcinfo, int n);
static const char *list_modes(void);
static void add_up_skus(AllocBulk *bulk);
static void add_qty(AllocBulkLine *sum, const AllocBulkLine *line);
static AllocBulkOutcome serve_all(AllocBulk *bulk);
static bool each_is_served(const AllocBulk *bulk);
static void return_order(const AllocBulk *bulk, ReturnSetInfo *result);
static const char *status_of(const AllocBulkLine *line);

static const OrderModeEntry modes[ORDER_NMODES] = {
	[ORDER_ALL] = {"all", serve_all},
	[ORDER_PARTIAL] = {"partial", alloc_bulk_allocate},
	[ORDER_BACKORDER] = {"backorder", alloc_bulk_allocate}
};

/*
 * alloc.allocate_order(orderid text, lines alloc.order_line[],
 * mode text DEFAULT 'all') returns setof (sku, qty, batchref, status)
 *		Gives the lines of an order the best batches, all of them or none
 *		('all'), or those that can be served ('partial'), and the rest waits
 *		('backorder').  A row for each sku, in the order in which they first
 *		appear: 'allocated', 'out_of_stock', 'backordered', or 'not_taken':
 *		there was stock, or the line is held, but the order is not taken.
 *
 * The same order again: the same batches, or it waits, and no event.  Errors:
 * those of allocate(); 22004, too, when lines, one of them or mode is NULL;
 * 22023 when a line is of another order or there is no such mode; 22003 (the
 * quantities of a sku pass 2^63-1).  Source: DESIGN section 2.
 */
Datum
alloc_allocate_order(PG_FUNCTION_ARGS)
{
	text	   *orderid = alloc_arg_key(fcinfo, 0, "orderid");
	OrderMode	mode = arg_mode(fcinfo, 2);
	MemoryContext lines_cxt;
	MemoryContext oldcxt;
	AllocBulk	bulk = {0};

	InitMaterializedSRF(fcinfo, 0);
	lines_cxt = AllocSetContextCreate(CurrentMemoryContext, "alloc lines",
									  ALLOCSET_DEFAULT_SIZES);
	oldcxt = MemoryContextSwitchTo(lines_cxt);
	alloc_bulk_read(&bulk, fcinfo, 1, orderid);
	add_up_skus(&bulk);
	bulk.rest_waits = mode == ORDER_BACKORDER;
	alloc_bulk_run(&bulk, "allocate_order()", modes[mode].serve);
	alloc_stat_count(ALLOC_STAT_ALLOCATE_ORDER);
	return_order(&bulk, (ReturnSetInfo *) fcinfo->resultinfo);
	alloc_handler_run_noted();
	MemoryContextSwitchTo(oldcxt);
	MemoryContextDelete(lines_cxt);
	return (Datum) 0;
}

/*
 * alloc._hold_for_fleet(orderid text, sku text, qty bigint, ttl interval) returns text
 *		hold(), however many holds the order has: it is being taken on several
 *		partitions.
 *
 * Errors: those of hold(), but for 53400.
 */
Datum
alloc_hold_for_fleet(PG_FUNCTION_ARGS)
{
	int			level = NewGUCNestLevel();
	Datum		ref;

	(void) set_config_option("alloc.max_holds_per_order", "-1", PGC_SUSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	ref = alloc_hold(fcinfo);
	AtEOXact_GUC(true, level);
	return ref;
}

static OrderMode
arg_mode(FunctionCallInfo fcinfo, int n)
{
	const text *name;
	int			mode;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("mode must not be null")));
	name = PG_GETARG_TEXT_PP(n);
	for (mode = 0; mode < ORDER_NMODES; mode++)
		if (alloc_same_key(name, cstring_to_text(modes[mode].name)))
			return mode;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown mode \"%s\"", alloc_show(name)),
			 errhint("Modes are %s.", list_modes())));
	return mode;
}

static const char *
list_modes(void)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < ORDER_NMODES; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", modes[i].name);
	return list.data;
}

/*
 * Leaves one line for each sku, where its first one was.
 */
static void
add_up_skus(AllocBulk *bulk)
{
	HTAB	   *skus = alloc_hash_by_key("alloc skus of an order",
										 sizeof(OrderSku), bulk->nlines);
	size_t		n = 0;

	for (size_t i = 0; i < bulk->nlines; i++)
	{
		const AllocBulkLine *line = &bulk->lines[i];
		OrderSku   *sku;
		bool		found;

		CHECK_FOR_INTERRUPTS();
		sku = hash_search(skus, &line->line.sku, HASH_ENTER, &found);
		if (found)
			add_qty(sku->line, line);
		else
		{
			sku->line = &bulk->lines[n++];
			*sku->line = *line;
		}
	}
	bulk->nlines = n;
	hash_destroy(skus);
}

static void
add_qty(AllocBulkLine *sum, const AllocBulkLine *line)
{
	if (pg_add_s64_overflow(sum->line.qty, line->line.qty, &sum->line.qty))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("order \"%s\" has too much of sku \"%s\"",
						alloc_show(line->line.orderid),
						alloc_show(line->line.sku)),
				 errdetail("The quantities of all lines of a sku must add up to a bigint.")));
}

static AllocBulkOutcome
serve_all(AllocBulk *bulk)
{
	if (!alloc_bulk_plan(bulk))
		return ALLOC_BULK_AGAIN;
	if (!each_is_served(bulk))
		return alloc_bulk_give_up(bulk) ?
			ALLOC_BULK_GIVEN_UP : ALLOC_BULK_AGAIN;
	return alloc_bulk_keep_whole(bulk) && alloc_bulk_write(bulk) ?
		ALLOC_BULK_DONE : ALLOC_BULK_AGAIN;
}

static bool
each_is_served(const AllocBulk *bulk)
{
	for (size_t i = 0; i < bulk->nlines; i++)
		if (bulk->lines[i].fate == ALLOC_LINE_NOT_SERVED)
			return false;
	return true;
}

static void
return_order(const AllocBulk *bulk, ReturnSetInfo *result)
{
	for (size_t i = 0; i < bulk->nlines; i++)
	{
		const AllocBulkLine *line = &bulk->lines[i];
		Datum		values[4];
		bool		nulls[4] = {0};

		CHECK_FOR_INTERRUPTS();
		values[0] = PointerGetDatum(line->line.sku);
		values[1] = Int64GetDatum(line->line.qty);
		values[2] = PointerGetDatum(line->ref);
		values[3] = CStringGetTextDatum(status_of(line));
		nulls[2] = line->ref == NULL;
		tuplestore_putvalues(result->setResult, result->setDesc, values,
							 nulls);
		pfree(DatumGetPointer(values[3]));
	}
}

static const char *
status_of(const AllocBulkLine *line)
{
	switch (line->fate)
	{
		case ALLOC_LINE_PLACED:
		case ALLOC_LINE_THERE:
		case ALLOC_LINE_HELD:
			return "allocated";
		case ALLOC_LINE_NOT_SERVED:
			return "out_of_stock";
		case ALLOC_LINE_NOT_TAKEN:
			return "not_taken";
		case ALLOC_LINE_WAITS:
			return "backordered";
	}
	return NULL;
}
