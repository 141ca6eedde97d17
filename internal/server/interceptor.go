package server

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Begin is told of each call, by its method, when it begins, and then with its
// code when it has ended.
type Begin func(rpc string) (end func(code string))

// Unary returns the interceptor of every unary call: it turns a panic into an
// error of that call, errors into gRPC codes, logs and counts.
func Unary(log *slog.Logger, begin Begin) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
		start, end := time.Now(), begin(path.Base(info.FullMethod))
		defer func() {
			if p := recover(); p != nil {
				log.Error("panic in a call", "rpc", path.Base(info.FullMethod), "panic", p, "stack", string(debug.Stack()))
				resp, err = nil, status.Error(codes.Internal, fmt.Sprintf("internal error: %v", p))
			}
			logCall(ctx, log, info.FullMethod, start, err)
			end(status.Code(err).String())
		}()
		resp, err = handle(ctx, req)
		return resp, toStatus(err)
	}
}

// Stream is Unary for streaming calls.
func Stream(log *slog.Logger, begin Begin) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
		start, end := time.Now(), begin(path.Base(info.FullMethod))
		defer func() {
			if p := recover(); p != nil {
				log.Error("panic in a call", "rpc", path.Base(info.FullMethod), "panic", p, "stack", string(debug.Stack()))
				err = status.Error(codes.Internal, fmt.Sprintf("internal error: %v", p))
			}
			logCall(ss.Context(), log, info.FullMethod, start, err)
			end(status.Code(err).String())
		}()
		return toStatus(handle(srv, ss))
	}
}

// logCall logs a call: what changes something at info, what only looks at
// debug, and failures that are not the caller's mistake at warn. Requests are
// not logged: they can hold secrets.
func logCall(ctx context.Context, log *slog.Logger, method string, start time.Time, err error) {
	name := path.Base(method)
	level := slog.LevelDebug
	if Mutates(method) {
		level = slog.LevelInfo
	}
	attrs := []slog.Attr{slog.String("rpc", name), slog.Duration("took", time.Since(start).Round(time.Microsecond))}
	if err != nil {
		code := status.Code(err)
		if code != codes.NotFound && code != codes.Unimplemented {
			level = slog.LevelWarn
		}
		attrs = append(attrs, slog.String("code", code.String()), slog.String("err", err.Error()))
	}
	log.LogAttrs(ctx, level, "call", attrs...)
}

// Mutates reports whether a method, by its full name, changes something.
func Mutates(method string) bool { return mutates[path.Base(method)] }

var mutates = map[string]bool{
	"RunPodSandbox": true, "StopPodSandbox": true, "RemovePodSandbox": true,
	"CreateContainer": true, "StartContainer": true, "StopContainer": true, "RemoveContainer": true,
	"PullImage": true, "RemoveImage": true, "UpdateRuntimeConfig": true,
	"UpdateContainerResources": true, "UpdatePodSandboxResources": true,
}
