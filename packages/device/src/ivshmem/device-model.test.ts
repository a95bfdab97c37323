import { memoryLayout, pci } from '@ivshmem/transport/protocol';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DeviceModel } from './device-model.ts';

const identity = { id: 1, maxPeers: 3, protocol: 1, vectors: 4, layout: memoryLayout(0x10000, 3, 0x1000) };

/** A device whose driver has turned on what messages need. */
function running(): DeviceModel {
  const model = new DeviceModel(identity);
  model.configuration.write(0x04, Buffer.from([0x06, 0x04]));
  model.configuration.write(0x5a, Buffer.from([0x03, 0x80]));
  return model;
}

const read = (model: DeviceModel, offset: number) => model.readRegister(offset, 4);
const write = (model: DeviceModel, offset: number, value: number) => model.writeRegister(offset, 4, value);
const registers = (model: DeviceModel) => [0, 4, 8, 12, 16].map((offset) => read(model, offset));

describe('the registers', () => {
  it('have these values after reset', () => {
    expect(registers(new DeviceModel(identity))).toEqual([1, 3, 0, 0, 0]);
  });

  it('ID and Maximum Peers cannot be written', () => {
    const model = new DeviceModel(identity);
    expect([write(model, pci.Register.ID, 7), write(model, pci.Register.MAXIMUM_PEERS, 7)]).toEqual([
      null,
      null,
    ]);
    expect(registers(model)).toEqual([1, 3, 0, 0, 0]);
  });

  it('Interrupt Control has one bit', () => {
    const model = new DeviceModel(identity);
    write(model, pci.Register.INTERRUPT_CONTROL, 0xffffffff);
    expect(read(model, pci.Register.INTERRUPT_CONTROL)).toBe(1);
    write(model, pci.Register.INTERRUPT_CONTROL, 0xfffffffe);
    expect(read(model, pci.Register.INTERRUPT_CONTROL)).toBe(0);
  });

  it('ignore every other access than 32 bits, aligned, to a register', () => {
    const offset = fc.integer({ min: 0, max: 0xfff });
    const size = fc.constantFrom(1, 2, 4, 8);
    fc.assert(
      fc.property(offset, size, fc.integer(), (at, width, value) => {
        const model = new DeviceModel(identity);
        write(model, pci.Register.STATE, 0xaa55);
        if (width === 4 && at <= 0x10 && at % 4 === 0) return;
        expect(model.readRegister(at, width)).toBe(0);
        expect(model.writeRegister(at, width, value)).toBeNull();
        expect(registers(model)).toEqual([1, 3, 0, 0, 0xaa55]);
      }),
    );
  });
});

describe('the Doorbell register', () => {
  it('names a target in bits 16-31 and a vector in bits 0-15', () => {
    expect(write(new DeviceModel(identity), pci.Register.DOORBELL, 0x0002_0003)).toEqual({
      type: 'ring',
      peer: 2,
      vector: 3,
    });
    const many = new DeviceModel({ ...identity, maxPeers: 0x10000, vectors: 2048 });
    expect(write(many, pci.Register.DOORBELL, 0xffff_07ff)).toEqual({
      type: 'ring',
      peer: 0xffff,
      vector: 0x7ff,
    });
  });

  it('may name this device itself', () => {
    expect(write(new DeviceModel(identity), pci.Register.DOORBELL, 0x0001_0000)).toEqual({
      type: 'ring',
      peer: 1,
      vector: 0,
    });
  });

  it.each([0x0003_0000, 0xffff_0000, 0x0000_0004, 0x0000_0100, 0x0000_ffff])(
    'has no effect by %i',
    (value) => {
      expect(write(new DeviceModel(identity), pci.Register.DOORBELL, value)).toBeNull();
    },
  );
});

describe('the State register', () => {
  it('publishes a change, and no write that changes nothing', () => {
    const model = new DeviceModel(identity);
    expect(write(model, pci.Register.STATE, 0)).toBeNull();
    expect(write(model, pci.Register.STATE, 0xffffffff)).toEqual({ type: 'state', value: 0xffffffff });
    expect(write(model, pci.Register.STATE, -1)).toBeNull();
    expect(read(model, pci.Register.STATE)).toBe(0xffffffff);
    expect(write(model, pci.Register.STATE, 1)).toEqual({ type: 'state', value: 1 });
  });
});

describe('an interrupt', () => {
  it('is lost while interrupts are disabled', () => {
    const model = running();
    expect(model.interrupt()).toBe(false);
    write(model, pci.Register.INTERRUPT_CONTROL, 1);
    expect([model.interrupt(), model.interrupt()]).toEqual([true, true]);
    write(model, pci.Register.INTERRUPT_CONTROL, 0);
    expect(model.interrupt()).toBe(false);
  });

  it('disables further ones in one-shot mode, when it is delivered', () => {
    const model = running();
    model.configuration.write(0x43, Buffer.from([1]));
    write(model, pci.Register.INTERRUPT_CONTROL, 1);
    expect(model.interrupt()).toBe(true);
    expect(read(model, pci.Register.INTERRUPT_CONTROL)).toBe(0);
    expect(model.interrupt()).toBe(false);
    write(model, pci.Register.INTERRUPT_CONTROL, 1);
    model.configuration.write(0x04, Buffer.from([0x02]));
    expect(model.interrupt()).toBe(false);
    expect(read(model, pci.Register.INTERRUPT_CONTROL)).toBe(1);
  });

  it('needs MSI-X and Bus Master', () => {
    const model = new DeviceModel(identity);
    write(model, pci.Register.INTERRUPT_CONTROL, 1);
    const outcomes = [0x00, 0x04, 0x00, 0x04].map((command, i) => {
      model.configuration.write(0x04, Buffer.from([command]));
      model.configuration.write(0x5b, Buffer.from([i < 2 ? 0x00 : 0x80]));
      return model.interrupt();
    });
    expect(outcomes).toEqual([false, false, false, true]);
  });
});

describe('reset', () => {
  it('resets everything, and publishes the state once', () => {
    const model = running();
    model.configuration.write(0x43, Buffer.from([1]));
    write(model, pci.Register.INTERRUPT_CONTROL, 1);
    write(model, pci.Register.STATE, 3);
    expect(model.reset()).toEqual({ type: 'state', value: 0 });
    expect(model.reset()).toBeNull();
    expect(registers(model)).toEqual([1, 3, 0, 0, 0]);
    expect(model.configuration.oneShot).toBe(false);
    expect(model.interrupt()).toBe(false);
  });
});
