// Package plain writes plain data as bytes and reads it back: the state of a machine, while its guest runs
// nowhere and waits for that. The bytes are the values one after another, as in C, and nothing else:
//
//	bool           1 byte: 0, 1
//	intN, uintN    N/8 bytes; int has 8
//	float64        8 bytes, IEEE 754
//	struct         its exported fields, in their order
//	array          its elements
//	slice, string  4 bytes: how many; its elements
//	pointer        1 byte: 0, nil; 1, and what it points to
//
// Numbers are little-endian. Both sides must have the same types, of which none contains itself; nothing here finds
// that out. A value has only one form: what can be read is what writing the result gives, byte by byte.
package plain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
)

// Marshal returns v as bytes. A type that is not in the table above is a mistake in the program, and panics.
func Marshal(v any) []byte { return put(nil, reflect.ValueOf(v)) }

func put(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return append(b, 1)
		}
		return append(b, 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return putNumber(b, uint64(v.Int()), v.Type())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return putNumber(b, v.Uint(), v.Type())
	case reflect.Float64:
		return putNumber(b, math.Float64bits(v.Float()), v.Type())
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanInterface() { // it is exported
				b = put(b, f)
			}
		}
		return b
	case reflect.Array:
		return putElements(b, v)
	case reflect.Slice:
		return putElements(binary.LittleEndian.AppendUint32(b, uint32(v.Len())), v)
	case reflect.String:
		return append(binary.LittleEndian.AppendUint32(b, uint32(v.Len())), v.String()...)
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0)
		}
		return put(append(b, 1), v.Elem())
	}
	panic(fmt.Sprintf("plain: a %v", v.Type()))
}

func putNumber(b []byte, n uint64, t reflect.Type) []byte {
	return binary.LittleEndian.AppendUint64(b, n)[:len(b)+int(t.Size())]
}

func putElements(b []byte, v reflect.Value) []byte {
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
		return append(b, v.Bytes()...)
	}
	for i := range v.Len() {
		b = put(b, v.Index(i))
	}
	return b
}

// Unmarshal reads all of b into what v points to. It may be anything at all: the memory it takes is bounded by
// the length of b times what the types' forms are smaller than the types themselves.
func Unmarshal(b []byte, v any) error {
	b, err := get(b, reflect.ValueOf(v).Elem())
	if err == nil && len(b) > 0 {
		return fmt.Errorf("%d bytes too many", len(b))
	}
	return err
}

var errShort = errors.New("it ends too early")

// get reads v from the beginning of b and returns the rest.
func get(b []byte, v reflect.Value) ([]byte, error) {
	switch t := v.Type(); t.Kind() {
	case reflect.Bool:
		one, b, err := getFlag(b)
		v.SetBool(one)
		return b, err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, b, err := getNumber(b, t)
		unused := 64 - 8*t.Size()
		v.SetInt(int64(n) << unused >> unused)
		return b, err
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, b, err := getNumber(b, t)
		v.SetUint(n)
		return b, err
	case reflect.Float64:
		n, b, err := getNumber(b, t)
		v.SetFloat(math.Float64frombits(n))
		return b, err
	case reflect.Struct:
		var err error
		for i := 0; i < v.NumField() && err == nil; i++ {
			if f := v.Field(i); f.CanSet() {
				b, err = get(b, f)
			}
		}
		return b, err
	case reflect.Array:
		return getElements(b, v)
	case reflect.Slice:
		n, b, err := getLength(b, least(t.Elem()))
		if err != nil || n == 0 {
			v.SetZero()
			return b, err
		}
		v.Set(reflect.MakeSlice(t, n, n))
		return getElements(b, v)
	case reflect.String:
		n, b, err := getLength(b, 1)
		if err != nil {
			return b, err
		}
		v.SetString(string(b[:n]))
		return b[n:], nil
	case reflect.Pointer:
		there, b, err := getFlag(b)
		if err != nil || !there {
			v.SetZero()
			return b, err
		}
		v.Set(reflect.New(t.Elem()))
		return get(b, v.Elem())
	default:
		panic(fmt.Sprintf("plain: a %v", t))
	}
}

func getFlag(b []byte) (bool, []byte, error) {
	switch {
	case len(b) == 0:
		return false, b, errShort
	case b[0] > 1:
		return false, b, fmt.Errorf("%#x where 0 or 1 must be", b[0])
	}
	return b[0] == 1, b[1:], nil
}

func getNumber(b []byte, t reflect.Type) (uint64, []byte, error) {
	n := int(t.Size())
	if len(b) < n {
		return 0, b, errShort
	}
	var full [8]byte
	copy(full[:], b[:n])
	return binary.LittleEndian.Uint64(full[:]), b[n:], nil
}

// getLength reads a number of elements that take at least so many bytes each, which must be there.
func getLength(b []byte, each int) (int, []byte, error) {
	if len(b) < 4 {
		return 0, b, errShort
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	if b = b[4:]; n*uint64(each) > uint64(len(b)) {
		return 0, b, errShort
	}
	return int(n), b, nil
}

func getElements(b []byte, v reflect.Value) (_ []byte, err error) {
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
		return b[copy(v.Bytes(), b):], nil // getLength has seen that they are there
	}
	for i := 0; i < v.Len() && err == nil; i++ {
		b, err = get(b, v.Index(i))
	}
	return b, err
}

// least is how many bytes a value takes at least. Elements of a slice take some, or any number of them could come.
func least(t reflect.Type) int {
	switch t.Kind() {
	case reflect.Struct:
		n := 0
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() {
				n += least(f.Type)
			}
		}
		return max(n, 1)
	case reflect.Array:
		return max(t.Len()*least(t.Elem()), 1)
	case reflect.Slice, reflect.String:
		return 4
	case reflect.Pointer:
		return 1
	default:
		return int(t.Size())
	}
}
