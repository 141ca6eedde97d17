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

// Observe counts a call that has ended, by its method and its code.
type Observe func(rpc, code string, took time.Duration)

// Unary returns the interceptor of every unary call: it turns a panic into an
// error of that call, errors into gRPC codes, logs and counts.
func Unary(log *slog.Logger, observe Observe) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
		start := time.Now()
		defer func() {
			if p := recover(); p != nil {
				log.Error("panic in a call", "rpc", path.Base(info.FullMethod), "panic", p, "stack", string(debug.Stack()))
				resp, err = nil, status.Error(codes.Internal, fmt.Sprintf("internal error: %v", p))
			}
			logCall(ctx, log, info.FullMethod, start, err)
			observe(path.Base(info.FullMethod), status.Code(err).String(), time.Since(start))
		}()
		resp, err = handle(ctx, req)
		return resp, toStatus(err)
	}
}

// Stream is Unary for streaming calls.
func Stream(log *slog.Logger, observe Observe) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
		start := time.Now()
		defer func() {
			if p := recover(); p != nil {
				log.Error("panic in a call", "rpc", path.Base(info.FullMethod), "panic", p, "stack", string(debug.Stack()))
				err = status.Error(codes.Internal, fmt.Sprintf("internal error: %v", p))
			}
			logCall(ss.Context(), log, info.FullMethod, start, err)
			observe(path.Base(info.FullMethod), status.Code(err).String(), time.Since(start))
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
