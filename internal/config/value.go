package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A value reads and writes one setting of a C.
type value[C any] interface {
	reset(*C)                          // to the default
	take(to, from *C)                  // it shares what never changes
	setTOML(c *C, v any) error         // v is as the TOML library decodes it
	setFlag(c *C, args []string) error // the flag's arguments, one per use
	toml(*C) string                    // as a TOML value
	check(*C) error
	typeName() string // for help: "string", "duration"
}

// field is the value of type T at one place of a C.
type field[C, T any] struct {
	at     func(*C) *T
	def    T
	kind   kind[T]
	checks []func(T) error
}

// kind is how a T is spelled.
type kind[T any] struct {
	name     string
	fromTOML func(any) (T, bool)
	want     string // what fromTOML takes, in an error's words
	fromFlag func([]string) (T, error)
	toml     func(T) string
}

func (f field[C, T]) reset(c *C)       { *f.at(c) = f.def }
func (f field[C, T]) take(to, from *C) { *f.at(to) = *f.at(from) }
func (f field[C, T]) toml(c *C) string { return f.kind.toml(*f.at(c)) }
func (f field[C, T]) typeName() string { return f.kind.name }

func (f field[C, T]) setTOML(c *C, v any) error {
	t, ok := f.kind.fromTOML(v)
	if !ok {
		return fmt.Errorf("want %s, have %s", f.kind.want, describe(v))
	}
	*f.at(c) = t
	return f.check(c)
}

func (f field[C, T]) setFlag(c *C, args []string) error {
	t, err := f.kind.fromFlag(args)
	if err != nil {
		return err
	}
	*f.at(c) = t
	return f.check(c)
}

func (f field[C, T]) check(c *C) error {
	for _, check := range f.checks {
		if err := check(*f.at(c)); err != nil {
			return err
		}
	}
	return nil
}

// describe says what a TOML value is, and shows it if it is short.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return "the string " + strconv.Quote(v)
	case int64, float64, bool:
		return fmt.Sprintf("%v", v)
	case []any:
		return "a list"
	case map[string]any, []map[string]any:
		return "a table"
	default:
		return fmt.Sprintf("%v", v)
	}
}

func last(args []string) string { return args[len(args)-1] }

func text[C any](at func(*C) *string, def string, checks ...func(string) error) value[C] {
	return field[C, string]{at, def, kind[string]{
		name:     "string",
		want:     "a string",
		fromTOML: func(v any) (string, bool) { s, ok := v.(string); return s, ok },
		fromFlag: func(args []string) (string, error) { return last(args), nil },
		toml:     quote,
	}, checks}
}

func list[C any](at func(*C) *[]string, def []string, checks ...func([]string) error) value[C] {
	return field[C, []string]{at, def, kind[[]string]{
		name:     "list",
		want:     "a list of strings",
		fromTOML: stringList,
		fromFlag: func(args []string) ([]string, error) {
			var out []string
			for _, arg := range args {
				out = append(out, strings.Split(arg, ",")...)
			}
			return slices.DeleteFunc(out, func(s string) bool { return s == "" }), nil
		},
		toml: func(v []string) string {
			quoted := make([]string, len(v))
			for i, s := range v {
				quoted[i] = quote(s)
			}
			return "[" + strings.Join(quoted, ", ") + "]"
		},
	}, checks}
}

// table is a value of strings by name; by default it has none.
func table[C any](at func(*C) *map[string]string) value[C] {
	const want = `a table of strings such as { "key" = "value" }`
	return field[C, map[string]string]{at, nil, kind[map[string]string]{
		name:     "table",
		want:     want,
		fromTOML: stringTable,
		fromFlag: func([]string) (map[string]string, error) { return nil, fmt.Errorf("a file must say it: %s", want) },
		toml: func(v map[string]string) string {
			var pairs []string
			for _, name := range slices.Sorted(maps.Keys(v)) {
				pairs = append(pairs, quote(name)+" = "+quote(v[name]))
			}
			if len(pairs) == 0 {
				return "{}"
			}
			return "{ " + strings.Join(pairs, ", ") + " }"
		},
	}, nil}
}

func stringTable(v any) (map[string]string, bool) {
	items, ok := v.(map[string]any)
	if !ok {
		return nil, false
	}
	out := make(map[string]string, len(items))
	for name, item := range items {
		if out[name], ok = item.(string); !ok {
			return nil, false
		}
	}
	return out, true
}

func boolean[C any](at func(*C) *bool, def bool) value[C] {
	return field[C, bool]{at, def, kind[bool]{
		name:     "bool",
		want:     "true or false",
		fromTOML: func(v any) (bool, bool) { b, ok := v.(bool); return b, ok },
		fromFlag: func(args []string) (bool, error) { return strconv.ParseBool(last(args)) },
		toml:     strconv.FormatBool,
	}, nil}
}

func stringList(v any) ([]string, bool) {
	items, ok := v.([]any)
	if !ok {
		return nil, false
	}
	var out []string
	for _, item := range items {
		s, ok := item.(string)
		if !ok {
			return nil, false
		}
		out = append(out, s)
	}
	return out, true
}

func number[C any, T int | int64](at func(*C) *T, def T, checks ...func(int64) error) value[C] {
	wrapped := make([]func(T) error, len(checks))
	for i, check := range checks {
		wrapped[i] = func(v T) error { return check(int64(v)) }
	}
	return field[C, T]{at, def, kind[T]{
		name:     "int",
		want:     "an integer",
		fromTOML: func(v any) (T, bool) { n, ok := v.(int64); return T(n), ok },
		fromFlag: func(args []string) (T, error) {
			n, err := strconv.ParseInt(last(args), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("want an integer, have %q", last(args))
			}
			return T(n), nil
		},
		toml: func(v T) string { return strconv.FormatInt(int64(v), 10) },
	}, wrapped}
}

func duration[C any](at func(*C) *time.Duration, def time.Duration, checks ...func(time.Duration) error) value[C] {
	const want = `a duration such as "90s" or "2m"`
	return field[C, time.Duration]{at, def, kind[time.Duration]{
		name: "duration",
		want: want,
		fromTOML: func(v any) (time.Duration, bool) {
			s, ok := v.(string)
			if !ok {
				return 0, false
			}
			d, err := time.ParseDuration(s)
			return d, err == nil
		},
		fromFlag: func(args []string) (time.Duration, error) {
			d, err := time.ParseDuration(last(args))
			if err != nil {
				return 0, fmt.Errorf("want %s, have %q", want, last(args))
			}
			return d, nil
		},
		toml: func(v time.Duration) string { return quote(short(v)) },
	}, checks}
}

// short is v without the zero units at its end: 2m, not 2m0s.
func short(v time.Duration) string {
	s := v.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// quote is s as a basic string of TOML (https://toml.io/en/v1.0.0#string).
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, "\\u%04x", r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
