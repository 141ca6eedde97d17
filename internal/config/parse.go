package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/BurntSushi/toml"
)

// origin is where a value came from.
type origin struct {
	file string // "" for a default or a flag
	line int    // 0 if not known
	flag string // "" for a default or a file
}

func (o origin) String() string {
	switch {
	case o.flag != "":
		return "flag --" + o.flag
	case o.file == "":
		return "default"
	case o.line == 0:
		return o.file
	default:
		return fmt.Sprintf("%s:%d", o.file, o.line)
	}
}

// path is a key's full name, "root" or "runtimes.crun.path".
type path = string

// apply sets in l what the TOML text src of the named file says. The error
// names file, line and key, and joins every fault of a text that is TOML.
func (l *Loaded) apply(file, src string) error {
	var top map[string]toml.Primitive
	meta, err := toml.Decode(src, &top)
	if err != nil {
		return syntaxError(file, err)
	}
	d := decoder{file: file, meta: &meta}
	for _, name := range slices.Sorted(maps.Keys(top)) {
		if name == runtimesTable {
			d.runtimes(l, top[name])
			continue
		}
		set(&d, l, keys(), &l.Config, "", name, top[name])
	}
	return errors.Join(d.errs...)
}

// decoder goes through one file.
type decoder struct {
	file string
	meta *toml.MetaData
	errs []error
}

func (d *decoder) fail(line int, name path, err error) {
	d.errs = append(d.errs, fmt.Errorf("%s: %s: %w", origin{file: d.file, line: line}, name, err))
}

func (d *decoder) runtimes(l *Loaded, p toml.Primitive) {
	for _, name := range d.tables(runtimesTable, p) {
		full := runtimesTable + "." + name.name
		if err := handlerName(name.name); err != nil {
			d.fail(d.line(name.value), full, err)
			continue
		}
		r := l.Runtimes[name.name]
		for _, k := range d.tables(full, name.value) {
			set(d, l, runtimeKeys(), &r, full+".", k.name, k.value)
		}
		l.Runtimes = withRuntime(l.Runtimes, name.name, r)
		l.origins[full] = origin{file: d.file, line: d.line(name.value)}
	}
}

type member struct {
	name  string
	value toml.Primitive
}

// tables returns the members of the table p, by name; if p is no table, that
// is a fault.
func (d *decoder) tables(name path, p toml.Primitive) []member {
	var table asTable
	if err := d.meta.PrimitiveDecode(p, &table); err != nil {
		d.fail(d.line(p), name, errors.New("want a table"))
		return nil
	}
	var members map[string]toml.Primitive
	if err := d.meta.PrimitiveDecode(p, &members); err != nil {
		d.fail(d.line(p), name, errors.New("want a table"))
		return nil
	}
	var out []member
	for _, k := range slices.Sorted(maps.Keys(members)) {
		out = append(out, member{k, members[k]})
	}
	return out
}

// set gives one key of the table its value and notes where it came from.
func set[C any](d *decoder, l *Loaded, table []key[C], c *C, prefix path, name string, p toml.Primitive) {
	line := d.line(p)
	k, ok := find(table, name)
	if !ok {
		d.fail(line, prefix+name, unknownKey(table, prefix, name))
		return
	}
	var v anything
	if err := d.meta.PrimitiveDecode(p, &v); err != nil {
		d.fail(line, prefix+name, err)
		return
	}
	if err := k.value.setTOML(c, v.v); err != nil {
		d.fail(line, prefix+name, err)
		return
	}
	l.origins[prefix+name] = origin{file: d.file, line: line}
}

// line is the line of p's key. The library tells positions only in errors, so
// we ask for one.
func (d *decoder) line(p toml.Primitive) int {
	var parseErr toml.ParseError
	if errors.As(d.meta.PrimitiveDecode(p, new(nothing)), &parseErr) {
		return parseErr.Position.Line
	}
	return 0
}

var errNothing = errors.New("takes no value")

// nothing refuses every value.
type nothing struct{}

func (*nothing) UnmarshalTOML(any) error { return errNothing }

// anything takes every value.
type anything struct{ v any }

func (a *anything) UnmarshalTOML(v any) error {
	a.v = v
	return nil
}

// asTable takes a table only.
type asTable struct{}

func (*asTable) UnmarshalTOML(v any) error {
	if _, ok := v.(map[string]any); !ok {
		return errNothing
	}
	return nil
}

func syntaxError(file string, err error) error {
	var parseErr toml.ParseError
	if !errors.As(err, &parseErr) {
		return fmt.Errorf("%s: %w", file, err)
	}
	where := origin{file: file, line: parseErr.Position.Line}
	if parseErr.LastKey != "" {
		return fmt.Errorf("%s: at %s: %s", where, parseErr.LastKey, parseErr.Message)
	}
	return fmt.Errorf("%s: %s", where, parseErr.Message)
}

// unknownKey names the nearest key if name looks like a slip of it.
func unknownKey[C any](table []key[C], prefix path, name string) error {
	best, distance := "", 1+max(1, len(name)/3)
	candidates := make([]string, 0, len(table)+1)
	for _, k := range table {
		candidates = append(candidates, k.name)
	}
	if prefix == "" {
		candidates = append(candidates, runtimesTable)
	}
	for _, c := range candidates {
		if n := editDistance(name, c); n < distance {
			best, distance = c, n
		}
	}
	if best == "" {
		return errors.New("unknown key")
	}
	return fmt.Errorf("unknown key; is %s%s meant?", prefix, best)
}

// editDistance is the least number of bytes to insert, delete or replace to
// turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			above := row[j+1]
			row[j+1] = min(above+1, row[j]+1, diagonal+cost)
			diagonal = above
		}
	}
	return row[len(b)]
}
