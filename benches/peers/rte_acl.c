/*
 * DPDK's access list classifier as a peer: rte_acl RULES TRACE
 *
 * Both files are little-endian u32. RULES: a count, then ten a rule (low and high of source, destination, source port,
 * destination port, protocol), addresses being prefixes; the first rule that holds a packet wins. TRACE: a count, then
 * six a packet (the five fields and the place of the rule expected, or 0xFFFFFFFF).
 *
 * Prints build seconds and bytes. Then, for each line that it reads, classifies the trace by every method of the
 * library that this processor has, and prints: nanoseconds a packet one at a time, the same in batches (the fastest of
 * bursts of 32 and 256), and how many answers were wrong.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rte_acl.h>
#include <rte_byteorder.h>
#include <rte_eal.h>
#include <rte_malloc.h>

enum { RULE_WORDS = 10, PACKET_WORDS = 6, FIELDS = 5, SLICE = 512 };

/* In network byte order, as rte_acl reads it. */
struct key {
	uint8_t protocol;
	uint8_t unused[3];
	uint32_t source;
	uint32_t destination;
	uint16_t source_port;
	uint16_t destination_port;
};

static const struct rte_acl_field_def fields[FIELDS] = {
	{RTE_ACL_FIELD_TYPE_BITMASK, 1, 0, 0, offsetof(struct key, protocol)},
	{RTE_ACL_FIELD_TYPE_MASK, 4, 1, 1, offsetof(struct key, source)},
	{RTE_ACL_FIELD_TYPE_MASK, 4, 2, 2, offsetof(struct key, destination)},
	{RTE_ACL_FIELD_TYPE_RANGE, 2, 3, 3, offsetof(struct key, source_port)},
	{RTE_ACL_FIELD_TYPE_RANGE, 2, 4, 3, offsetof(struct key, destination_port)},
};

RTE_ACL_RULE_DEF(five_tuple_rule, FIELDS);

struct trace {
	uint32_t packets;
	struct key *keys;
	const uint8_t **pointers;
	uint32_t *expected;
	uint32_t *answers;
};

static void fail(const char *what)
{
	fprintf(stderr, "rte_acl: %s\n", what);
	exit(1);
}

/* Of this thread: what else runs here does not count. */
static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec + now.tv_nsec * 1e-9;
}

static uint32_t *read_rows(const char *path, size_t words, uint32_t *rows)
{
	FILE *file = fopen(path, "rb");
	if (!file || fread(rows, sizeof *rows, 1, file) != 1)
		fail(path);
	uint32_t *data = malloc((size_t)*rows * words * sizeof *data + 1);
	if (!data || fread(data, words * sizeof *data, *rows, file) != *rows)
		fail(path);
	fclose(file);
	return data;
}

static uint32_t prefix_length(uint32_t low, uint32_t high)
{
	return low == high ? 32 : (uint32_t)__builtin_clz(low ^ high);
}

static struct rte_acl_ctx *build(const char *path)
{
	uint32_t count;
	uint32_t *rows = read_rows(path, RULE_WORDS, &count);
	struct rte_acl_param parameters = {
		.name = "peer", .rule_size = RTE_ACL_RULE_SZ(FIELDS), .max_rule_num = count};
	struct rte_acl_ctx *context = rte_acl_create(&parameters);
	struct five_tuple_rule *rules = calloc(count, sizeof *rules);
	if (!context || !rules)
		fail("no memory");
	for (uint32_t i = 0; i < count; i++) {
		const uint32_t *row = rows + (size_t)i * RULE_WORDS;
		struct five_tuple_rule *rule = &rules[i];
		rule->data.category_mask = 1;
		rule->data.priority = count - i;
		rule->data.userdata = i + 1;
		rule->field[0].value.u8 = row[8];
		rule->field[0].mask_range.u8 = row[8] == row[9] ? 0xff : 0;
		for (int side = 0; side < 2; side++) {
			rule->field[1 + side].value.u32 = row[2 * side];
			rule->field[1 + side].mask_range.u32 = prefix_length(row[2 * side], row[2 * side + 1]);
			rule->field[3 + side].value.u16 = row[4 + 2 * side];
			rule->field[3 + side].mask_range.u16 = row[5 + 2 * side];
		}
	}
	if (rte_acl_add_rules(context, (struct rte_acl_rule *)rules, count))
		fail("rules refused");
	struct rte_acl_config config = {.num_categories = 1, .num_fields = FIELDS};
	memcpy(config.defs, fields, sizeof fields);
	double start = seconds();
	if (rte_acl_build(context, &config))
		fail("build failed");
	double taken = seconds() - start;
	struct rte_malloc_socket_stats heap;
	rte_malloc_get_socket_stats(0, &heap);
	printf("%f %zu\n", taken, heap.heap_allocsz_bytes);
	free(rules);
	free(rows);
	return context;
}

static struct trace read_trace(const char *path)
{
	struct trace trace;
	uint32_t *rows = read_rows(path, PACKET_WORDS, &trace.packets);
	trace.keys = aligned_alloc(64, ((size_t)trace.packets * sizeof *trace.keys + 63) / 64 * 64);
	trace.pointers = malloc(trace.packets * sizeof *trace.pointers);
	trace.expected = malloc(trace.packets * sizeof *trace.expected);
	trace.answers = malloc(trace.packets * sizeof *trace.answers);
	if (!trace.keys || !trace.pointers || !trace.expected || !trace.answers)
		fail("no memory");
	for (uint32_t i = 0; i < trace.packets; i++) {
		const uint32_t *row = rows + (size_t)i * PACKET_WORDS;
		trace.keys[i] = (struct key){
			.source = rte_cpu_to_be_32(row[0]),
			.destination = rte_cpu_to_be_32(row[1]),
			.source_port = rte_cpu_to_be_16(row[2]),
			.destination_port = rte_cpu_to_be_16(row[3]),
			.protocol = row[4],
		};
		trace.pointers[i] = (const uint8_t *)&trace.keys[i];
		trace.expected[i] = row[5];
	}
	free(rows);
	return trace;
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;
	return (left > right) - (left < right);
}

/* Nanoseconds a packet: the median over slices of the trace, so that what else runs here does not count. */
static double classify(const struct rte_acl_ctx *context, struct trace *trace, uint32_t burst, uint32_t *wrong)
{
	uint32_t slices = 0;
	double *times = malloc((trace->packets / SLICE + 1) * sizeof *times);
	if (!times)
		fail("no memory");
	for (uint32_t first = 0; first + SLICE <= trace->packets; first += SLICE) {
		double start = seconds();
		for (uint32_t i = first; i < first + SLICE; i += burst)
			rte_acl_classify(context, trace->pointers + i, trace->answers + i, burst, 1);
		times[slices++] = (seconds() - start) * 1e9 / SLICE;
	}
	for (uint32_t i = 0; i < slices * SLICE; i++)
		*wrong += trace->answers[i] - 1 != trace->expected[i];
	qsort(times, slices, sizeof *times, compare);
	double median = slices ? times[slices / 2] : -1;
	free(times);
	return median;
}

static double fastest(struct rte_acl_ctx *context, struct trace *trace, const uint32_t *bursts, int count,
		      uint32_t *wrong)
{
	static const enum rte_acl_classify_alg methods[] = {
		RTE_ACL_CLASSIFY_SCALAR, RTE_ACL_CLASSIFY_SSE,	     RTE_ACL_CLASSIFY_AVX2,
		RTE_ACL_CLASSIFY_NEON,	 RTE_ACL_CLASSIFY_AVX512X16, RTE_ACL_CLASSIFY_AVX512X32};
	double best = -1;
	for (size_t method = 0; method < RTE_DIM(methods); method++) {
		/* Refused where the processor lacks it. */
		if (rte_acl_set_ctx_classify(context, methods[method]))
			continue;
		for (int i = 0; i < count; i++) {
			double taken = classify(context, trace, bursts[i], wrong);
			if (best < 0 || taken < best)
				best = taken;
		}
	}
	return best;
}

int main(int count, char **arguments)
{
	char *environment[] = {"rte_acl",     "--no-huge",	"-m",	       "6144",
			       "--no-pci",    "--no-shconf",	"--no-telemetry", "--lcores", "0@(0-1)",
			       "--log-level=1", "--force-max-simd-bitwidth=512"};
	if (count != 3)
		fail("usage: rte_acl RULES TRACE");
	if (rte_eal_init(RTE_DIM(environment), environment) < 0)
		fail("the environment of DPDK does not start");
	struct rte_acl_ctx *context = build(arguments[1]);
	struct trace trace = read_trace(arguments[2]);
	fflush(stdout);
	static const uint32_t one[] = {1}, bursts[] = {32, 256};
	for (int next = getchar(); next != EOF; next = getchar()) {
		if (next != '\n')
			continue;
		uint32_t wrong = 0;
		double alone = fastest(context, &trace, one, 1, &wrong);
		double batch = fastest(context, &trace, bursts, 2, &wrong);
		printf("%f %f %u\n", alone, batch, wrong);
		fflush(stdout);
	}
	return 0;
}
