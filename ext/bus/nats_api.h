/* The NATS client library, opened at run time.
**
** libmarmot.so names no symbol of libnats: a host that carries a NATS client
** of its own would otherwise lend us its functions, whose structures differ.
** The library is opened once a process and never closed (its threads run on).
**
** Threads: any for mm_nats_api; the first successful call starts the
** library's three threads, with every signal blocked. */
#ifndef MM_BUS_NATS_API_H
#define MM_BUS_NATS_API_H

#include <nats/nats.h>

#include "base/err.h"

/* clang-format off */
#define MM_NATS_SYMBOLS(X)                \
    X(nats_Open)                          \
    X(nats_GetLastError)                  \
    X(nats_ReleaseThreadMemory)           \
    X(natsStatus_GetText)                 \
    X(natsInbox_Create)                   \
    X(natsInbox_Destroy)                  \
    X(natsOptions_Create)                 \
    X(natsOptions_Destroy)                \
    X(natsOptions_SetServers)             \
    X(natsOptions_SetName)                \
    X(natsOptions_SetUserInfo)            \
    X(natsOptions_SetToken)               \
    X(natsOptions_SetNKeyFromSeed)        \
    X(natsOptions_SetUserCredentialsFromFiles) \
    X(natsOptions_SetSecure)              \
    X(natsOptions_LoadCATrustedCertificates)   \
    X(natsOptions_LoadCertificatesChain)  \
    X(natsOptions_SetTimeout)             \
    X(natsOptions_SetPingInterval)        \
    X(natsOptions_SetAllowReconnect)      \
    X(natsOptions_SetSendAsap)            \
    X(natsOptions_SetIOBufSize)           \
    X(natsOptions_SetEventLoop)           \
    X(natsConnection_Connect)             \
    X(natsConnection_Destroy)             \
    X(natsConnection_IsClosed)            \
    X(natsConnection_GetLastError)        \
    X(natsConnection_GetConnectedUrl)     \
    X(natsConnection_GetMaxPayload)       \
    X(natsConnection_ProcessReadEvent)    \
    X(natsConnection_ProcessWriteEvent)   \
    X(natsConnection_Publish)             \
    X(natsConnection_PublishMsg)          \
    X(natsConnection_SubscribeSync)       \
    X(natsSubscription_SetPendingLimits)  \
    X(natsSubscription_NextMsg)           \
    X(natsSubscription_QueuedMsgs)        \
    X(natsSubscription_Destroy)           \
    X(natsMsg_Create)                     \
    X(natsMsg_Destroy)                    \
    X(natsMsg_GetSubject)                 \
    X(natsMsg_GetReply)                   \
    X(natsMsg_GetData)                    \
    X(natsMsg_GetDataLength)              \
    X(natsMsgHeader_Set)                  \
    X(natsMsgHeader_Get)
/* clang-format on */

struct mm_nats_api {
#define X(name) __typeof__(name) *name;
    MM_NATS_SYMBOLS(X)
#undef X
    void *handle;
};

/* NULL with err set (SQLITE_CANTOPEN names the package that is missing). */
const struct mm_nats_api *mm_nats_api(struct mm_err *err);

/* A function of a library that libnats itself needs (libcrypto); NULL if none. */
void *mm_nats_symbol(const struct mm_nats_api *api, const char *name);

#endif
