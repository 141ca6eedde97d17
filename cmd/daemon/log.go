package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/gantry-cri/gantry/internal/config"
)

// newLogger returns the daemon's own log, which goes to standard error, and what
// changes its level.
func newLogger(cfg config.Config) (*slog.Logger, *slog.LevelVar, error) {
	level := new(slog.LevelVar)
	first, err := logLevel(cfg)
	if err != nil {
		return nil, nil, err
	}
	level.Set(first)
	opts := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts)), level, nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts)), level, nil
}

func logLevel(cfg config.Config) (level slog.Level, err error) {
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		return level, fmt.Errorf("log_level: %w", err)
	}
	return level, nil
}
