/*
 * fedstill/ranks.h - processes that one launcher (mpirun) started together, numbered from 0.
 *
 * Bytes from one rank to another, nothing else: what they mean is the task's matter (fst_task_options.ranks). MPI
 * itself is used in one file, src/transport/mpi/ranks_mpi.c, which becomes a module of its own, ranks-mpi.so, beside
 * the program or in LIBDIR/fedstill. It is loaded only where a launcher is seen, so a program that is built with it
 * neither needs nor loads an MPI library otherwise.
 */
#ifndef FEDSTILL_RANKS_H
#define FEDSTILL_RANKS_H

#include "fedstill/base.h"

FST_BEGIN_DECLS

typedef struct fst_ranks fst_ranks;

/* How many processes the launcher says that it started (OMPI_COMM_WORLD_SIZE of Open MPI, PMI_SIZE of MPICH and its
 * relatives); 1 without one. */
FST_API int fst_ranks_launched(void);
/* Joins them, once in a process; *out NULL: there is only one. FST_E_CONFIG: this build has no module, or it is of
 * another MPI than the launcher. stopped, which may be NULL, is asked while something is waited for, from any thread:
 * when it says so, waiting ends with FST_E_CANCELLED. */
FST_MUST FST_API fst_status fst_ranks_open(fst_ranks **out, bool (*stopped)(void *ctx), void *ctx, fst_error *err);
/* together: all ranks call this, and wait for each other. Otherwise the process only forgets them, and the launcher
 * ends what is left when it exits. NULL: nothing. */
FST_API void fst_ranks_close(fst_ranks *r, bool together);
FST_API int fst_ranks_own(const fst_ranks *r);   /* this process' number */
FST_API int fst_ranks_count(const fst_ranks *r); /* of them; at least 2 */
/*
 * One message to or from a rank. Several threads may wait at a time, each for another rank. receive replaces what is in
 * *out, whose memory is the caller's, and which grows with what has come, not by the length that is announced.
 * FST_E_CANCELLED: it is to stop. A receive that nothing came for leaves no trace; what had begun to come or to go, and
 * the other rank takes no part in, MPI keeps until the process ends: then the buffer is empty and its memory is gone.
 * Nothing more can be said with that rank then, nor after FST_E_LIMIT, above `most` bytes, and FST_E_IO: MPI failed, or
 * the other process is not there any more.
 */
FST_MUST FST_API fst_status fst_ranks_send(fst_ranks *r, int to, fst_buf *data, fst_error *err);
FST_MUST FST_API fst_status fst_ranks_receive(fst_ranks *r, int from, uint64_t most, fst_buf *out, fst_error *err);

FST_END_DECLS

#endif
